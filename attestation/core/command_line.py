"""The kernel command line, split the way Linux splits it, so that no argument hides in another one."""


def kernel_arguments(line: str) -> list[str]:
    """Split a command line as the kernel does (next_arg): at spaces outside quotes, up to the "--" before init's."""
    words, word, quoted = [], "", False
    for letter in line:
        quoted ^= letter == '"'
        if letter.isspace() and not quoted:
            words.append(word)
            word = ""
        else:
            word += letter
    words = [each for each in (*words, word) if each]
    return words[: words.index("--")] if "--" in words else words
