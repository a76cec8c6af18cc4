"""A secret that a real software TPM gives out a counted number of times, for a while, in one boot state."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.core.quote import BOOT_PCRS
from guardedhost import lab
from guardedhost.allowance import INDICES, Allowance
from guardedhost.errors import TpmFailure
from guardedhost.store import Store
from guardedhost.tpm import Tpm
from tests.guardedhost.conftest import DRIFT, ON

SECRET = bytes(range(32))
HOUR = 3_600_000


@pytest.fixture
def tcti(store: Store) -> str:
    return store.config().tcti


def allowed(tpm: Tpm, *, times: int = 2, milliseconds: int = HOUR) -> Allowance:
    return tpm.allow(SECRET, BOOT_PCRS, index=tpm.new_counter(), times=times, milliseconds=milliseconds)


def test_it_opens_as_often_as_it_was_allowed_and_no_more(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        allowance = allowed(tpm)
        for _ in range(2):
            tpm.count(allowance.index)
            assert tpm.opened(allowance) == SECRET
        tpm.count(allowance.index)
        with pytest.raises(TpmFailure, match="bound of the counter"):
            tpm.opened(allowance)


def test_it_opens_after_a_reboot_into_the_same_state_and_the_count_goes_on(lab_host: Path, tcti: str) -> None:
    with Tpm(tcti) as tpm:
        allowance = allowed(tpm, times=1)
    lab.reboot(lab_host, boot_log=ON, ima_log=None)
    with Tpm(tcti) as tpm:
        assert tpm.count(allowance.index) == allowance.last
        assert tpm.opened(allowance) == SECRET


def test_it_does_not_open_in_another_boot_state(lab_host: Path, tcti: str) -> None:
    with Tpm(tcti) as tpm:
        allowance = allowed(tpm)
    lab.reboot(lab_host, boot_log=DRIFT, ima_log=None)
    with Tpm(tcti) as tpm, pytest.raises(TpmFailure, match="boot state"):
        tpm.opened(allowance)


def test_it_does_not_open_after_its_time(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        allowance = allowed(tpm, milliseconds=0)
        with pytest.raises(TpmFailure, match="bound of the clock"):
            tpm.opened(allowance)


CHANGES: dict[str, Callable[[Allowance, int], Allowance]] = {
    "last": lambda it, _: replace(it, last=it.last + 5),
    "deadline": lambda it, _: replace(it, deadline=it.deadline + HOUR),
    "boot state": lambda it, _: replace(it, boot_pcrs=(0,)),
    "counter": lambda it, other: replace(it, index=other),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_bounds_that_were_written_anew_in_the_file_open_nothing(
    tcti: str, change: Callable[[Allowance, int], Allowance]
) -> None:
    with Tpm(tcti) as tpm:
        allowance, other = allowed(tpm), tpm.new_counter()
        with pytest.raises(TpmFailure):
            tpm.opened(change(allowance, other))
        assert tpm.opened(allowance) == SECRET


def test_a_counter_that_is_made_again_does_not_begin_anew(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        allowance = allowed(tpm, times=1)
        tpm.count(allowance.index)
        tpm.count(allowance.index)
        tpm.remove_counter(allowance.index)
        assert tpm.new_counter() == allowance.index
        assert tpm.counted(allowance.index) > allowance.last
        with pytest.raises(TpmFailure, match="bound of the counter"):
            tpm.opened(allowance)


def test_counters_end_with_a_sentence(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        made: list[int] = []
        with pytest.raises(TpmFailure):
            made.extend(tpm.new_counter() for _ in range(len(INDICES) + 1))
        assert len(set(made)) == len(made) > 4
        tpm.remove_counter(made[0])
        assert tpm.new_counter() == made[0]
