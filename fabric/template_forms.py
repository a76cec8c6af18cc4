"""What people fill in about template disks."""

from django import forms

from fabric.forms import StyledForm
from kps.core.catalog import CATALOG_LIMIT


class CatalogForm(StyledForm):
    """A template, by the catalog that its signer made."""

    catalog = forms.FileField(
        label="Volume signature catalog",
        help_text="The file that “guardhouse template sign” wrote. At most 96 KiB.",
        error_messages={"required": "Choose the catalog’s file"},
    )

    def clean_catalog(self) -> bytes:
        upload = self.cleaned_data["catalog"]
        if upload.size > CATALOG_LIMIT:
            raise forms.ValidationError("The file is larger than 96 KiB, so it is no catalog")
        return bytes(upload.read())
