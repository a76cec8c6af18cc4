"""The inventory: whose machines these are. What a host has proved is attestation's; what was released is kps's.

And people's tokens for the API.
"""

import uuid
from datetime import datetime, timedelta
from typing import ClassVar, Final, TypeVar

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.urls import reverse
from knox.models import AbstractAuthToken

from kps.core.chain import subject_of

Viewer = User | AnonymousUser
USE_SHOWN_AFTER: Final = timedelta(minutes=1)  # so that a busy token does not write with each request
FINGERPRINT = RegexValidator(r"\A[0-9a-f]{64}\Z", "A fingerprint is 64 lower-case hexadecimal digits.")


class TenantQuerySet(models.QuerySet["Tenant"]):
    def visible_to(self, user: Viewer) -> "TenantQuerySet":
        if user.has_perm("fabric.view_fleet"):
            return self
        return self.filter(membership__user_id=user.pk) if user.is_authenticated else self.none()


class Tenant(models.Model):
    """Someone who hands virtual machines to this fabric without trusting its administrators."""

    name = models.CharField(max_length=100)
    slug = models.SlugField(unique=True)
    owner_fingerprint = models.CharField(max_length=64, unique=True, validators=[FINGERPRINT])

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("tenant", args=[self.slug])


class Membership(models.Model):
    """What a person may do for a tenant."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        OPERATOR = "operator", "Operator"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    role = models.CharField(max_length=10, choices=Role)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "user"], name="one_membership_per_tenant")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.tenant}"


class HostQuerySet(models.QuerySet["Host"]):
    def visible_to(self, user: Viewer) -> "HostQuerySet":
        return self if user.has_perm("fabric.view_fleet") else self.none()


class Host(models.Model):
    """A machine of this fabric; its trust is its Attester's."""

    name = models.CharField(max_length=64, db_index=True)
    attester = models.OneToOneField("attestation.Attester", on_delete=models.PROTECT, related_name="host")
    note = models.CharField(max_length=300, blank=True)

    objects = HostQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name", "id"]
        permissions: ClassVar = [
            ("view_fleet", "May see hosts, proposals, baselines and releases"),
            ("view_audit", "May read the audit log"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("host", args=[self.attester_id])


class VirtualMachineQuerySet(models.QuerySet["VirtualMachine"]):
    def visible_to(self, user: Viewer) -> "VirtualMachineQuerySet":
        if user.has_perm("fabric.view_fleet"):
            return self
        return self.filter(tenant__membership__user_id=user.pk) if user.is_authenticated else self.none()


class VirtualMachine(models.Model):
    """A tenant's machine, known here by its tenant and the id of its key protector, which another may have as well."""

    class Level(models.TextChoices):
        SHIELDED = "shielded", "Shielded"
        ENCRYPTION_SUPPORTED = "encryption-supported", "Encryption-supported"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="machines")
    name = models.CharField(max_length=100)
    protector_id = models.UUIDField()
    level = models.CharField(max_length=24, choices=Level)
    added_at = models.DateTimeField()
    made_from = models.ForeignKey("ShieldingData", null=True, on_delete=models.PROTECT, related_name="machines")

    objects = VirtualMachineQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "name"], name="one_machine_of_a_name_per_tenant"),
            models.UniqueConstraint(fields=["tenant", "protector_id"], name="one_machine_of_a_protector_per_tenant"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("machine", args=[self.pk])

    @property
    def key(self) -> tuple[str, uuid.UUID]:
        """How key protection knows it: by its owner's fingerprint and the id of its key protector."""
        return self.tenant.owner_fingerprint, self.protector_id

    @property
    def subject(self) -> str:
        return subject_of(*self.key)


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def visible_to(self, user: Viewer) -> "ApiTokenQuerySet":
        """One's own; those who may revoke hosts see everybody's, to end them."""
        if user.has_perm("attestation.revoke"):
            return self
        return self.filter(user_id=user.pk) if user.is_authenticated else self.none()

    def alive(self, *, now: datetime) -> "ApiTokenQuerySet":
        return self.filter(expiry__gt=now)


class ApiToken(AbstractAuthToken):  # type: ignore[misc]  # knox ships no types
    """A person's key to the API, by its hash; whoever reads the table can ask for nothing with it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    digest = models.CharField(max_length=128, unique=True)
    expiry = models.DateTimeField()  # there is none without an end
    name = models.CharField(max_length=60)
    used_at = models.DateTimeField(null=True)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["user__username", "name"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "name"], name="one_api_token_of_a_name_per_person")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"token:{self.id}"

    def used(self, *, now: datetime) -> None:
        """Remember that it was used, to the minute, so that one that nobody uses can be seen and ended."""
        stale = Q(used_at=None) | Q(used_at__lt=now - USE_SHOWN_AFTER)
        ApiToken.objects.filter(stale, pk=self.pk).update(used_at=now)


class TemplateDiskQuerySet(models.QuerySet["TemplateDisk"]):
    def visible_to(self, user: Viewer) -> "TemplateDiskQuerySet":
        """Everybody who has a role here, a tenant's people too: they decide whose signature they trust."""
        return self if sees_templates(user) else self.none()


class TemplateDisk(models.Model):
    """A disk that new machines are made of, by its signer's catalog. It never changes; it can be retired."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64)
    version = models.CharField(max_length=40)
    version_order = models.CharField(max_length=40)  # the same, such that text sorts as the numbers do
    signer = models.CharField(max_length=43)  # the JWK thumbprint
    signer_name = models.CharField(max_length=64)
    signed_at = models.DateTimeField()
    size = models.BigIntegerField()
    root = models.CharField(max_length=64)
    catalog = models.TextField()
    added_at = models.DateTimeField()
    added_by = models.CharField(max_length=200)
    retired_at = models.DateTimeField(null=True)
    retired_by = models.CharField(max_length=200, blank=True)

    objects = TemplateDiskQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name", "signer", "-version_order"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["signer", "name", "version_order"], name="one_template_of_a_version")
        ]
        permissions: ClassVar = [("offer_templates", "May offer template disks and retire them")]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def get_absolute_url(self) -> str:
        return reverse("template", args=[self.pk])

    @property
    def subject(self) -> str:
        return f"template:{self.pk}"

    @property
    def retired(self) -> bool:
        return self.retired_at is not None


def sees_templates(user: Viewer) -> bool:
    return user.has_perm("fabric.view_fleet") or (
        user.is_authenticated and Membership.objects.filter(user_id=user.pk).exists()
    )


OfTenant = TypeVar("OfTenant", bound=models.Model)


class OfTenantQuerySet(models.QuerySet[OfTenant]):
    """What belongs to a tenant: seen by that tenant's people, and by the fabric's."""

    def visible_to(self, user: Viewer) -> "OfTenantQuerySet[OfTenant]":
        if user.has_perm("fabric.view_fleet"):
            return self
        if not user.is_authenticated:
            return self.none()
        return self.filter(tenant__in=Membership.objects.filter(user_id=user.pk).values("tenant_id"))


class ShieldingData(models.Model):
    """A version of a tenant's shielding data file, as its owner signed it; nobody here can open it.

    `head` is its first line; what is sealed follows in `pieces`, and never changes. The same file may come again under
    a newer statement of its owner's, whose head takes the place of the one before. When it is withdrawn the file itself
    is erased, and what machines were made from stays.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="shielding_data")
    name = models.CharField(max_length=64)
    version = models.PositiveIntegerField()
    description = models.CharField(max_length=500, blank=True)
    protector_id = models.UUIDField()
    level = models.CharField(max_length=24, choices=VirtualMachine.Level)
    digest = models.CharField(max_length=64)
    size = models.IntegerField()
    made_at = models.DateTimeField()  # as its owner has signed
    asks_for = models.JSONField()
    head = models.TextField()
    added_at = models.DateTimeField()
    added_by = models.CharField(max_length=200)
    withdrawn_at = models.DateTimeField(null=True)
    withdrawn_by = models.CharField(max_length=200, blank=True)

    objects = OfTenantQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name", "-version"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "name", "version"], name="one_shielding_data_of_a_version"),
            models.UniqueConstraint(fields=["tenant", "protector_id"], name="one_shielding_data_of_a_protector"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def get_absolute_url(self) -> str:
        return reverse("shielding-data", args=[self.pk])

    @property
    def key(self) -> tuple[str, uuid.UUID]:
        """How key protection knows it, as it knows a machine."""
        return self.tenant.owner_fingerprint, self.protector_id

    @property
    def subject(self) -> str:
        """Return how the ledger names it: by its key protector."""
        return subject_of(self.tenant.owner_fingerprint, self.protector_id)

    @property
    def withdrawn(self) -> bool:
        return self.withdrawn_at is not None


class ShieldingPiece(models.Model):
    """A line of a shielding data file after the first: a piece of what is sealed, in its order."""

    data = models.ForeignKey(ShieldingData, on_delete=models.CASCADE, related_name="pieces")
    number = models.PositiveSmallIntegerField()
    sealed = models.TextField()

    class Meta:
        ordering: ClassVar = ["number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["data", "number"], name="one_piece_of_a_number"),
        ]

    def __str__(self) -> str:
        return f"{self.data} piece {self.number}"


class MachineOrder(models.Model):
    """A new machine that a tenant wants: of which template, from which shielding data, with which values.

    Nobody signs it: what a host makes of it is bound by the shielding data, and the values are of strict kinds.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="orders")
    name = models.CharField(max_length=64)
    template = models.ForeignKey(TemplateDisk, on_delete=models.PROTECT, related_name="orders")
    shielding_data = models.ForeignKey(ShieldingData, on_delete=models.PROTECT, related_name="orders")
    memory = models.PositiveIntegerField()  # MiB
    values = models.JSONField()
    ordered_at = models.DateTimeField()
    ordered_by = models.CharField(max_length=200)
    cancelled_at = models.DateTimeField(null=True)
    cancelled_by = models.CharField(max_length=200, blank=True)
    machine = models.OneToOneField(VirtualMachine, null=True, on_delete=models.PROTECT, related_name="order")

    objects = OfTenantQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-ordered_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tenant", "name"],
                condition=Q(machine__isnull=True, cancelled_at__isnull=True),
                name="one_open_order_of_a_name_per_tenant",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("order", args=[self.pk])

    @property
    def subject(self) -> str:
        return f"order:{self.pk}"

    @property
    def state(self) -> str:
        """`open`, `made` or `cancelled`."""
        if self.machine_id is not None:
            return "made"
        return "cancelled" if self.cancelled_at is not None else "open"
