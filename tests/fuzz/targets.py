"""Every reader of bytes that come from somewhere else, in one place.

A new parser is one line in `TARGETS`, and `test_registry.py` fails until it is there. The tests and `make fuzz` do the
rest with it.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from random import Random
from typing import Any, Final

from cryptography import x509
from rest_framework.exceptions import APIException
from rest_framework.serializers import Serializer

from attestation import serializers as attestation
from attestation.core import (
    appraise,
    assessment,
    base64url,
    cabinet,
    certificate,
    certificate_reader,
    ci_binary,
    ci_policy,
    claims,
    command_line,
    comparison,
    credential,
    der,
    difference,
    document,
    dossier,
    endorsement,
    eventlog,
    facts,
    ima,
    ima_signature,
    ima_templates,
    inspection,
    makers,
    oddities,
    pac,
    platform_identifier,
    policy_record,
    possession,
    quote,
    replay,
    runtime,
    runtime_text,
    second_look,
    sid,
    signature,
    sipa,
    tpm,
    transport,
    uefi,
    windows,
    words,
)
from attestation.core import bundle as authorities
from attestation.errors import NotFromTpm, ParseError, Refusal
from cli import care, guardians, inspect_ima, inspect_tables, inspect_tpm, owner_file, recovery, shield_recipe
from guardedhost import host_key, image, jwe, machine, wire
from guardedhost.diagnosis import bundle as bundle_of_trace
from guardedhost.errors import StoreDamaged
from kps import serializers as kps
from kps.core import (
    bundle,
    catalog,
    chain,
    guardian,
    handback,
    host_message,
    jose,
    offline,
    order,
    owner_message,
    partitions,
    protector,
    release_policy,
    request,
    sealed_stream,
    secrets,
    shielding_content,
    shielding_data,
    volume,
    wrap,
    wrapped,
)
from kps.errors import CatalogRefused, GuardianRefused
from ledger.core import audit, beginning, checkpoint, export, note, proof, strict_json, tree
from ledger.errors import LogRefused
from tests.fuzz import documents, exports, forge, notes, seeds, traces
from tests.fuzz.documents import text_of, value_of
from tests.fuzz.forge import AK, BANK, events_of, log_of
from tests.fuzz.mutations import mutate
from tests.kps.parties import NOW

SMALL: Final = 4 * 1024
DOCUMENT: Final = 16 * 1024
LARGE: Final = seeds.LARGEST

Errors = tuple[type[Exception], ...]
Seeds = Callable[[], Sequence[bytes]]


@dataclass(frozen=True)
class Target:
    """A function that reads, how it is given bytes, what it may raise, and good input for it."""

    name: str
    run: Callable[[bytes], object] = field(repr=False)
    raises: Errors = field(repr=False)
    seeds: Seeds = field(repr=False)
    limit: int = field(repr=False)

    def gives_a_value(self, data: bytes) -> bool:
        """False for a refusal that the function promises; any other exception goes through."""
        try:
            result = self.run(data)
            if isinstance(result, Iterator):
                for _ in result:
                    pass
        except self.raises:
            return False
        return True

    @cached_property
    def good(self) -> list[bytes]:
        return [data for data in self.seeds() if len(data) <= self.limit]

    def damaged(self, random: Random) -> bytes:
        return mutate(random.choice(self.good), random, others=self.good, limit=self.limit)


def _target(
    function: Callable[..., object],
    seeds: Seeds,
    given: Callable[[bytes], object] | None = None,
    *,
    run: Callable[[bytes], object] | None = None,
    raises: type[Exception] | Errors = ParseError,
    limit: int = SMALL,
    variant: str = "",
) -> Target:
    """`given` makes the function's argument of the bytes; `run` calls it where that is not enough."""
    named: Any = function.func if isinstance(function, partial) else function
    name = f"{named.__module__}.{named.__qualname__}{variant and ':'}{variant}"
    call = run or (function if given is None else lambda data: function(given(data)))
    return Target(name, call, raises if isinstance(raises, tuple) else (raises,), seeds, limit)


def _answer(read: Callable[[Any], object]) -> Target:
    """A reader of the portal's answers, which are JSON objects; `guardedhost.client` expects these exceptions."""
    raises = (KeyError, ValueError, TypeError, AttributeError, OverflowError)
    return _target(read, documents.answers, documents.object_of, raises=raises, limit=DOCUMENT)


def _message(serializer: type[Serializer[object]], seeds: Seeds) -> Target:
    """What a stranger posts to a machine endpoint."""

    def run(data: bytes) -> object:
        return serializer(data=value_of(data)).is_valid(raise_exception=True)

    return _target(serializer, seeds, run=run, raises=(Refusal, APIException), limit=DOCUMENT)


_NOTHING: Final = ()  # what any bytes give a value from
_ANY_TOKEN: Final = partial(jose.parse_jws, limit=DOCUMENT)
_SIGNERS: Final = (x509.load_der_x509_certificate(seeds.HEALTH_SIGNER),)
_HEALTH: Final = partial(certificate.verify_health_certificate, signers=_SIGNERS, now=NOW)
_STATED: Final = partial(certificate.read_health_certificate, signers=_SIGNERS)

TARGETS: Final = (
    # --- boot logs
    _target(eventlog.parse_event_log, seeds.logs, limit=LARGE),
    _target(partial(replay.replay_values, bank=BANK), seeds.logs, log_of, raises=Refusal, limit=LARGE),
    _target(replay.replay_banks, seeds.logs, log_of, limit=LARGE),
    _target(replay.replay, seeds.logs, run=forge.vouched, raises=Refusal, limit=LARGE),
    _target(partial(facts.read_facts, bank=BANK), seeds.logs, events_of, raises=Refusal, limit=LARGE),
    _target(partial(windows.windows_facts, bank=BANK), seeds.logs, events_of, raises=Refusal, limit=LARGE),
    _target(oddities.find_oddities, seeds.logs, run=forge.oddities, raises=Refusal, limit=LARGE),
    _target(difference.difference, seeds.logs, run=forge.compared, raises=Refusal, limit=LARGE),
    _target(partial(inspection.inspect_log, measured=None), seeds.logs, limit=LARGE),
    _target(inspection.inspect_log, seeds.logs, run=forge.inspected, limit=LARGE, variant="measured"),
    _target(claims.verify_evidence, seeds.logs, run=forge.claimed, raises=Refusal, limit=LARGE),
    _target(claims.read_boot, seeds.logs, run=forge.read_boot, raises=Refusal, limit=LARGE),
    _target(appraise.appraise, seeds.logs, run=forge.appraised, raises=Refusal, limit=LARGE),
    _target(appraise.appraise, seeds.ima_lists, run=forge.appraised_list, raises=Refusal, limit=LARGE, variant="ima"),
    _target(words.describe, seeds.events, run=forge.described, raises=_NOTHING),
    _target(words.secure_boot, seeds.logs, events_of, raises=Refusal, limit=LARGE),
    _target(command_line.read_command_line, seeds.command_lines, text_of, raises=_NOTHING),
    _target(comparison.parse_pcr_values, seeds.pcr_values),
    # --- what is in their events
    _target(uefi.parse_variable, seeds.variables, limit=DOCUMENT),
    _target(uefi.uefi_variable, seeds.variables, raises=_NOTHING),
    _target(uefi.parse_signature_lists, seeds.signature_lists, limit=DOCUMENT),
    _target(uefi.count_signatures, seeds.signature_lists, limit=DOCUMENT),
    _target(uefi.parse_authority, seeds.authorities),
    _target(uefi.parse_gpt, seeds.partition_tables, limit=DOCUMENT),
    _target(uefi.parse_image_load, seeds.image_loads),
    _target(uefi.parse_device_path, seeds.device_paths),
    _target(uefi.certificate_subject, seeds.certificates, raises=_NOTHING),
    _target(sipa.parse_sipa, seeds.sipa, limit=DOCUMENT),
    _target(sipa.integer, seeds.sipa_values, forge.sipa_record),
    _target(sipa.text, seeds.sipa_values, forge.sipa_record, raises=_NOTHING),
    _target(windows.parse_si_policy, seeds.si_policies),
    # --- what people upload of Windows hosts
    _target(ci_policy.parse_ci_policy, seeds.code_policies, limit=DOCUMENT),
    _target(ci_binary.read_blocks, seeds.code_policies, limit=DOCUMENT),
    _target(platform_identifier.parse_platform_identifier, seeds.platform_identifiers, limit=DOCUMENT),
    # --- more of what is in events
    _target(windows.parse_revocation_list, seeds.revocation_lists),
    _target(windows.parse_secure_boot_policy, seeds.secure_boot_policies),
    # --- IMA lists
    _target(ima.ima_records, seeds.ima_lists, limit=LARGE),
    _target(partial(ima.ima_measurements, bank=BANK), seeds.ima_lists, limit=LARGE),
    _target(ima.ima_values, seeds.ima_lists, run=forge.ima_values, limit=LARGE),
    _target(partial(ima.replay_ima, quoted=bytes(32), bank=BANK), seeds.ima_lists, raises=Refusal, limit=LARGE),
    _target(ima.replay_list, seeds.ima_lists, run=forge.replayed, limit=LARGE),
    _target(claims.read_ima, seeds.ima_lists, run=forge.read_ima, raises=Refusal, limit=LARGE),
    _target(ima_templates.ima_entries, seeds.ima_lists, limit=LARGE),
    _target(ima_templates.binary_from_text, seeds.ima_texts, limit=DOCUMENT),
    _target(ima_templates.decode_line, seeds.ima_lines),
    _target(ima_templates.path_and_digest, seeds.ima_lines),
    _target(ima_templates.boot_aggregate, seeds.ima_lines, run=forge.aggregate),
    _target(ima_signature.parse_signature, seeds.ima_signatures),
    _target(ima_signature.signed_by, seeds.ima_signatures, run=forge.file_signed),
    _target(ima_signature.parse_signer, seeds.certificates),
    _target(runtime.appraise_runtime, seeds.ima_lists, run=forge.judged, limit=LARGE),
    _target(runtime_text.parse_runtime_text, seeds.runtime_texts, limit=DOCUMENT),
    _target(runtime.template_digest, seeds.file_digests, text_of),
    _target(document.parse_document, documents.policies, documents.object_of, limit=DOCUMENT),
    # --- certificates
    _target(der.read_element, seeds.certificates),
    _target(der.read_elements, seeds.certificates),
    _target(der.sort_sets, seeds.certificates, der.read_element),
    _target(certificate_reader.read_certificate, seeds.certificates),
    _target(certificate_reader.parse_certificate, seeds.certificates),
    *(
        _target(about, seeds.certificates, certificate_reader.parse_certificate)
        for about in (
            *(certificate_reader.certificate_key, certificate_reader.certificate_names, certificate_reader.short_name),
            *(certificate_reader.issuer_address, makers.maker_of, endorsement.tpm_maker),
        )
    ),
    _target(endorsement.verify_endorsement, seeds.certificates, run=forge.endorsed, raises=Refusal),
    _target(cabinet.read_cabinet, seeds.cabinets, run=forge.unpacked, limit=DOCUMENT),
    _target(authorities.read_bundle, seeds.bundles, limit=DOCUMENT),
    _target(assessment.assess_bundle, seeds.bundles, run=forge.assessed, limit=DOCUMENT),
    _target(_HEALTH, seeds.health_certificates, raises=Refusal),
    _target(_STATED, seeds.health_certificates, raises=Refusal),
    # --- what a TPM says
    _target(tpm.parse_public, seeds.tpm_publics),
    _target(tpm.require_ak, seeds.tpm_publics, tpm.parse_public, raises=Refusal),
    _target(credential.make_credential, seeds.tpm_publics, run=forge.credential, raises=Refusal),
    _target(tpm.parse_attest, seeds.attestations, raises=(ParseError, NotFromTpm)),
    _target(quote.verify_quote, seeds.attestations, run=forge.quoted, raises=Refusal),
    _target(partial(signature.verify_signature, AK, seeds.NONCE), seeds.tpm_signatures, raises=Refusal),
    _target(signature.verify_signature, seeds.tpm_publics, run=forge.signed, raises=Refusal, variant="key"),
    _target(transport.verify_transport_key, seeds.tpm_publics, run=forge.transported, raises=Refusal),
    _target(possession.parse_host_key, seeds.public_keys, raises=Refusal),
    _target(possession.parse_transport_key, seeds.public_keys, raises=Refusal),
    _target(possession.verify_possession, seeds.possessions, run=forge.possessed, raises=Refusal, limit=DOCUMENT),
    _target(
        possession.verify_possession,
        seeds.possession_payloads,
        run=forge.possessed_signed,
        raises=Refusal,
        limit=DOCUMENT,
        variant="signed",
    ),
    # --- what a Kerberos ticket says
    _target(pac.parse_logon_info, seeds.logon_infos),
    _target(sid.parse_sid, seeds.sids),
    # --- key protection
    _target(base64url.from_b64u, documents.binaries, text_of, raises=ValueError),
    _target(jose.from_b64u, documents.binaries, text_of),
    _target(partial(jose.read_json, limit=DOCUMENT), documents.protectors, limit=DOCUMENT),
    _target(jose.parse_public_key, documents.public_keys, value_of),
    _target(_ANY_TOKEN, documents.tokens, text_of, limit=DOCUMENT),
    _target(_ANY_TOKEN, documents.token_parts, documents.dotted, variant="parts"),
    _target(jose.holds, documents.token_parts, run=forge.held),
    _target(guardian.parse_card, documents.cards, value_of),
    _target(guardian.parse_metadata, documents.metadata, text_of, raises=(ParseError, GuardianRefused)),
    _target(guardian.parse_metadata, documents.metadata_payloads, documents.by_owner, raises=Refusal, variant="signed"),
    _target(guardian.verify_metadata, documents.metadata, text_of, raises=(ParseError, GuardianRefused)),
    _target(guardian.verify_succession, documents.successions, text_of, raises=(ParseError, GuardianRefused)),
    _target(
        guardian.verify_succession, documents.succession_payloads, documents.by_owner, raises=Refusal, variant="signed"
    ),
    _target(protector.parse_protector, documents.protectors, limit=LARGE),
    _target(protector.parse_protector, documents.protectors, value_of, limit=LARGE, variant="value"),
    _target(protector.verify_protector, documents.protectors, value_of, raises=Refusal, limit=LARGE),
    _target(
        protector.verify_protector, documents.statements, documents.protector_by_owner, raises=Refusal, variant="signed"
    ),
    _target(chain.parse_chain, documents.chains, limit=LARGE),
    _target(chain.parse_links, documents.chain_links, documents.chain_as_signed, limit=DOCUMENT),
    _target(chain.verify_chain, documents.chain_links, documents.chain_as_signed, raises=Refusal, limit=DOCUMENT),
    _target(chain.verify_links, documents.chain_links, run=forge.linked, raises=Refusal, limit=DOCUMENT),
    _target(release_policy.parse_policy, documents.release_policies, value_of),
    _target(protector.open_protector, documents.protectors, run=forge.opened_protector, raises=Refusal),
    _target(wrapped.parse_wrapped, documents.wrapped_keys, value_of),
    _target(wrapped.decrypt, documents.wrapped_keys, run=forge.unwrapped, raises=Refusal),
    _target(request.parse_request, documents.requests, text_of, limit=DOCUMENT),
    _target(request.verify_request, documents.request_payloads, run=forge.requested, raises=Refusal, limit=DOCUMENT),
    _target(host_message.parse_message, documents.accounts, run=forge.host_message),
    _target(offline.parse_account, documents.accounts, text_of),
    _target(offline.verify_account, documents.account_payloads, run=forge.accounted, raises=Refusal),
    _target(handback.parse_return, documents.returns, text_of),
    _target(handback.verify_return, documents.return_payloads, run=forge.returned, raises=Refusal),
    _target(owner_message.parse_approval, documents.approvals, text_of),
    _target(owner_message.parse_approval, documents.approval_payloads, documents.by_owner, variant="signed"),
    _target(owner_message.verify_approval, documents.approvals, run=forge.approved, raises=Refusal),
    _target(owner_message.verify_question, documents.questions, text_of, raises=Refusal),
    _target(
        owner_message.verify_question, documents.question_payloads, documents.by_owner, raises=Refusal, variant="signed"
    ),
    _target(wrap.parse_released, documents.released_keys),
    _target(secrets.open_secrets, documents.sealed_secrets, run=forge.opened, raises=Refusal),
    _target(secrets.open_secrets, documents.secrets, run=forge.opened_sealed, raises=Refusal, variant="sealed"),
    _target(bundle.parse_vm, documents.machines),
    _target(bundle.parse_state, documents.states, limit=DOCUMENT),
    _target(machine.parse_description, documents.descriptions),
    _target(
        guardians.read_guardian, documents.published_metadata, raises=(ParseError, GuardianRefused), limit=DOCUMENT
    ),
    _target(
        guardians.read_metadata, documents.published_metadata, raises=(ParseError, GuardianRefused), limit=DOCUMENT
    ),
    _target(owner_file.parse_owner_file, documents.owner_files, limit=DOCUMENT),
    _target(recovery.parse_share, documents.shares),
    _target(recovery.combine, documents.share_sets, run=documents.combined, raises=Refusal, limit=DOCUMENT),
    _target(care.parse_care, documents.cares, limit=DOCUMENT),
    # --- shielding data
    _target(
        shielding_data.verify_shielding_data,
        documents.shielding_files,
        run=forge.verified_file,
        raises=Refusal,
        limit=DOCUMENT,
    ),
    _target(
        shielding_data.verify_shielding_data,
        documents.shielding_labels,
        run=lambda payload: forge.verified_file(documents.labelled(payload)),
        raises=Refusal,
        limit=DOCUMENT,
        variant="signed",
    ),
    _target(shielding_data.parse_head, documents.shielding_heads, raises=Refusal, limit=DOCUMENT),
    _target(shielding_data.read_shielding_data, documents.shielding_heads, io.BytesIO, raises=Refusal, limit=DOCUMENT),
    _target(sealed_stream.parse_digests, documents.piece_digests, value_of),
    _target(shielding_data.open_content, documents.shielding_contents, run=forge.opened_content, raises=Refusal),
    _target(shielding_content.parse_content, documents.shielding_contents, run=forge.content_of_stream),
    _target(shield_recipe.parse_recipe, documents.recipes),
    _target(order.parse_order, documents.orders),
    _target(order.parse_values, documents.place_values, value_of),
    # --- template disks
    _target(volume.parse_volume, documents.volumes, value_of),
    _target(catalog.parse_version, documents.versions, text_of),
    _target(catalog.parse_catalog, documents.catalogs, text_of, raises=(ParseError, CatalogRefused), limit=DOCUMENT),
    _target(
        catalog.parse_catalog,
        documents.catalog_payloads,
        documents.by_owner,
        raises=Refusal,
        limit=DOCUMENT,
        variant="signed",
    ),
    _target(partitions.parse_partitions, seeds.disks, limit=LARGE),
    _target(image.parse_format, seeds.disks, limit=LARGE),
    # --- the log
    _target(note.parse_vkey, notes.vkeys, text_of),
    _target(note.parse_note, notes.notes, text_of, limit=DOCUMENT),
    _target(note.parse_signature, notes.signature_lines, text_of),
    _target(note.verify_note, notes.checkpoints, run=notes.verified, raises=(ParseError, LogRefused)),
    _target(note.verify_cosignature, notes.cosignatures, run=notes.cosigned, raises=LogRefused),
    _target(checkpoint.parse_checkpoint, notes.checkpoint_texts, text_of),
    _target(checkpoint.parse_receipt, notes.receipt_texts, text_of),
    _target(
        checkpoint.verify_checkpoint,
        notes.checkpoint_texts,
        run=notes.verified_checkpoint,
        raises=(ParseError, LogRefused),
    ),
    _target(
        checkpoint.verify_receipt, notes.receipt_texts, run=notes.verified_receipt, raises=(ParseError, LogRefused)
    ),
    _target(partial(strict_json.read_json, limit=DOCUMENT), notes.leaf_proofs, limit=DOCUMENT),
    _target(proof.parse_leaf_proof, notes.leaf_proofs, limit=DOCUMENT),
    _target(proof.parse_growth, notes.growth_proofs, limit=DOCUMENT),
    _target(
        proof.verify_leaf_proof,
        notes.leaf_proofs,
        run=notes.proved,
        raises=(ParseError, LogRefused),
        limit=DOCUMENT,
    ),
    _target(proof.verify_growth, notes.growth_proofs, run=notes.grown, raises=(ParseError, LogRefused), limit=DOCUMENT),
    _target(beginning.verify_beginning, notes.beginnings, value_of, raises=(ParseError, LogRefused), limit=DOCUMENT),
    # --- the log as a file, and what its entries rest on
    _target(export.kind_of, exports.entries),
    _target(export.parse_header, exports.headers, limit=DOCUMENT),
    _target(export.parse_owner, exports.owners),
    _target(export.parse_entry, exports.entries),
    _target(export.parse_material, exports.materials),
    _target(export.parse_list, exports.lists),
    _target(export.verify_seal, exports.seals, run=exports.sealed, raises=(ParseError, LogRefused)),
    _target(audit.Audit, exports.exports, run=exports.audited),
    _target(policy_record.parse_policy_record, exports.records, limit=DOCUMENT),
    _target(
        policy_record.policy_from, exports.baselines, run=exports.with_baseline, variant="baseline", raises=Refusal
    ),
    _target(policy_record.policy_from, exports.runtimes, run=exports.with_runtime, variant="runtime"),
    _target(policy_record.policy_from, exports.code_policies, run=exports.with_code_policy, variant="code"),
    _target(dossier.parse_dossier, exports.dossiers, limit=DOCUMENT),
    _target(dossier.judge_again, exports.dossiers, run=exports.judged, raises=Refusal, limit=DOCUMENT),
    _target(second_look.look_at_all, exports.dossiers, run=exports.looked_at, raises=_NOTHING, limit=DOCUMENT),
    _target(second_look.parse_signers, seeds.certificates, run=exports.signed_by),
    _target(tree.verify_inclusion, notes.proofs, run=notes.included, raises=(ParseError, LogRefused)),
    _target(tree.verify_consistency, notes.growths, run=notes.consistent, raises=(ParseError, LogRefused)),
    # --- messages
    _message(attestation.EnrolmentSerializer, documents.enrolments),
    _message(attestation.ActivationSerializer, documents.activations),
    _message(attestation.HostKeySerializer, documents.host_keys),
    _message(attestation.KeyProofSerializer, documents.key_proofs),
    _message(attestation.PossessionSerializer, documents.possession_messages),
    _message(attestation.MembershipSerializer, documents.memberships),
    _message(attestation.ChallengeRequestSerializer, documents.challenge_requests),
    _message(attestation.EvidenceSerializer, documents.evidence),
    _message(kps.ReleaseRequestSerializer, documents.release_requests),
    _message(kps.AccountSerializer, documents.accounted_messages),
    _message(kps.ReturnSerializer, documents.returned_messages),
    _message(kps.ChainSerializer, documents.chain_messages),
    _message(kps.QuestionSerializer, documents.question_messages),
    _message(kps.ApprovalSerializer, documents.approval_messages),
    *map(_answer, (wire.read_enrolment, wire.read_activation, wire.read_challenge, wire.read_verdict)),
    *map(_answer, (wire.read_release, wire.read_key_offer, wire.read_held)),
    _target(partial(host_key.read_private, what="a file"), seeds.private_keys, raises=StoreDamaged),
    _target(jwe.open_jwe, documents.transport_tokens, run=forge.opened_by_tpm, raises=jwe.NotOpened),
    # --- `guardhouse host diagnose`
    _target(bundle_of_trace.read_bundle, traces.documents, traces.packed, limit=LARGE),
    _target(bundle_of_trace.read_bundle, traces.documents, run=traces.judged, limit=LARGE, variant="judged"),
    # --- `guardhouse inspect`
    _target(partial(inspect_ima.read_ima, measured=None), seeds.ima_lists, limit=LARGE),
    _target(partial(inspect_ima.read_ima, measured=None), seeds.ima_texts, limit=LARGE, variant="text"),
    _target(partial(inspect_tpm.read_quote, measured=None), seeds.attestations),
    _target(inspect_tpm.read_certificate, seeds.certificates),
    _target(inspect_tables.log_table, seeds.logs, forge.inspected, limit=LARGE),
)
