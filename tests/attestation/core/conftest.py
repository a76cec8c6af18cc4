"""Two software TPMs of one maker, and a TPM of another maker; made once, because that takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestation.core.tpm import TpmPublic, parse_public
from tests.tpm_lab import Key, Maker, Tpm, opened, running

ECC_AK = "ecc256:ecdsa-sha256:null"
NONCE = bytes(range(32))


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker") / "ca")


@pytest.fixture(scope="session")
def tpm(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm]:
    yield from _tpm(maker, tmp_path_factory.mktemp("tpm") / "host")


@pytest.fixture(scope="session")
def other_tpm(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm]:
    """Another host's TPM by the same maker."""
    yield from _tpm(maker, tmp_path_factory.mktemp("tpm") / "other")


@pytest.fixture
def ak(tpm: Tpm) -> Iterator[Key]:
    key = tpm.primary(ECC_AK)
    yield key
    tpm.forget(key)


@pytest.fixture
def ak_public(ak: Key) -> TpmPublic:
    return parse_public(ak.public)


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _tpm(maker: Maker, state: Path) -> Iterator[Tpm]:
    maker.manufacture(state)
    with running(state) as tcti, opened(tcti) as tpm:
        yield tpm
