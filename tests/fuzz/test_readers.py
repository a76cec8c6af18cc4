"""Whatever bytes come, every reader gives a value or the refusal that it promises, and never another exception."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target

# Python warns about serial numbers that RFC 5280 forbids, which is no exception.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
EVERY = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
FEW = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@EVERY
@FEW
@given(data=st.binary(max_size=400))
def test_any_bytes_give_a_value_or_the_refusal_that_is_promised(target: Target, data: bytes) -> None:
    target.gives_a_value(data)


@EVERY
@FEW
@given(data=st.data())
def test_damaged_captures_give_a_value_or_the_refusal_that_is_promised(target: Target, data: st.DataObject) -> None:
    target.gives_a_value(data.draw(st.randoms(use_true_random=False).map(target.damaged)))
