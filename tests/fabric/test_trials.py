"""A diagnosis on the pages: shown on its host's, as what it is, and nowhere as what the host is."""

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.attestation.conftest import Portal
from tests.attestation.test_trials import tried
from tests.fabric.test_modes import text
from tests.machines import Machine

Browse = Callable[[User | None], Client]


@pytest.fixture
def ada(fleet: Portal, browse: Browse, admin: User) -> Client:
    return browse(admin)


def test_a_trial_is_on_the_hosts_page_and_its_status_is_not_touched(
    fleet: Portal, healthy: Machine, drifted: Machine, ada: Client
) -> None:
    address = f"/hosts/{healthy.attester}/"
    before = text(ada.get(address))
    assert "Diagnoses" not in before
    assert tried(fleet, healthy).json()["status"] == "Passed"
    assert tried(fleet, healthy, log=drifted.log).status_code == 422
    above, _, below = text(ada.get(address)).partition("Diagnoses")
    assert before.startswith(above)
    assert "keys may be released to it" in above
    assert "Trials that the host asked for" in below
    assert below.index("TpmError") < below.index("log_replay_mismatch") < below.index("Passed")


def listed(client: Client) -> str:
    """What the page of attestations says, but for the second at which it was asked."""
    return re.sub(r"Page as of [0-9:]+", "", text(client.get("/attestations/")))


def test_a_trial_is_in_the_audit_list_and_among_no_attestations(
    fleet: Portal, healthy: Machine, drifted: Machine, ada: Client
) -> None:
    before = listed(ada)
    tried(fleet, drifted)
    tried(fleet, healthy, log=drifted.log)
    assert listed(ada) == before
    page = text(ada.get("/audit/"))
    assert f"{drifted.name} was diagnosed and would not pass: InsecureHostConfiguration" in page
    assert f"a diagnosis in the name of {healthy.name} was refused: log_replay_mismatch" in page
