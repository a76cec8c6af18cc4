"""The kernel command line, read the way Linux reads it, so that no argument hides in another one."""

import re
from dataclasses import dataclass
from typing import Final

_BLANK: Final = " \t\n\v\f\r"
# Quotes that the kernel, systemd and initial ramdisks understand alike: around a value, or around a whole word.
_PLAIN: Final = re.compile(r"""[^"']*|[^"'=]+="[^"]*"|"[^"]*\"""")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument. The kernel takes hyphens in a name for underscores; without "=" there is no value.

    What follows "--" the kernel hands to init and does not look at. Initial ramdisks and systemd look at all of it.
    """

    name: str
    value: str | None
    for_init: bool = False

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value}"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The arguments. `plain` says that there is one way to read them: other quotes hide words that systemd finds."""

    arguments: tuple[Argument, ...]
    plain: bool


def read_command_line(line: str) -> CommandLine:
    """Split an ASCII command line as the kernel does (lib/cmdline.c, next_arg; kernel/params.c, parse_args)."""
    words = _words(line)
    end = next((at for at, word in enumerate(words) if word in ("--", '"--"', '"--')), len(words))
    kernel = (_argument(word, for_init=False) for word in words[:end])
    init = (_argument(word, for_init=True) for word in words[end + 1 :])
    return CommandLine((*kernel, *init), all(map(_PLAIN.fullmatch, words)))


def _words(line: str) -> list[str]:
    """Cut at spaces outside quotes; a quote may stand anywhere in a word."""
    words, word, quoted = [], "", False
    for letter in line:
        quoted ^= letter == '"'
        if letter in _BLANK and not quoted:
            words.append(word)
            word = ""
        else:
            word += letter
    return [each for each in (*words, word) if each]


def _argument(word: str, *, for_init: bool) -> Argument:
    """Of a quoted word, or of one with a quoted value, the kernel takes the outer quotes away, the last one once."""
    quoted = word.startswith('"')
    word = word[quoted:]
    at = word.find("=", 1)
    name, value = (word, None) if at < 0 else (word[:at], word[at + 1 :])
    if value is None:
        name = name.removesuffix('"') if quoted else name
    elif value.startswith('"'):
        value = value[1:].removesuffix('"')
    elif quoted:
        value = value.removesuffix('"')
    return Argument(name.replace("-", "_"), value, for_init)
