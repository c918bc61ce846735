"""Untrusted text made inert: one function per medium.

Keys, paths, metadata, class names and everything else that a file chose go through one of these before they are
shown. What is escaped stays visible (``\\x1b``, ``\\u202e``), and two different names never look the same.
"""

from __future__ import annotations

import html
import re

from ckptool.core.shell import shell_quote

LONGEST = 400
"""Characters of an untrusted text that are shown at most; the middle of a longer one is left out."""

# Printable by their Unicode category, yet invisible or without a width of their own.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(map(chr, range(0xFE00, 0xFE10)))
_SUSPECT = re.compile(r"\\|::|##")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LOOKS_ESCAPED = re.compile(r"\\[\\nrtxuU]")
# What GitHub's runner takes for an instruction when it reads a log: "::" first in a line, "##[" anywhere.
_INSTRUCTS = re.compile(r"(?<![^\s]):(?=:)|#(?=#\[)")


def terminal(text: str, longest: int = LONGEST) -> str:
    """The text for one line of a terminal or a log.

    Controls, bidirectional and zero-width characters, lone surrogates, line ends, odd spaces and what a CI runner would
    obey become visible escapes. Backslashes are doubled only where the text could be mistaken for an escaped one.

    Example:
        >>> terminal("layer\\x1b[2J.weight")
        'layer\\\\x1b[2J.weight'
        >>> terminal("a" * 1000, longest=9)
        'aaaa…aaaa'
    """
    text = shorten(text, longest)
    if text.isascii() and text.isprintable() and not _SUSPECT.search(text):
        return text
    hidden = {char for char in text if _is_hidden(char)}
    instructs = _INSTRUCTS.search(text)
    if not hidden and not instructs and not _LOOKS_ESCAPED.search(text):
        return text
    text = text.replace("\\", "\\\\")
    if instructs:
        text = _INSTRUCTS.sub(lambda match: _visible(match[0]), text)
    for char in hidden:
        text = text.replace(char, _visible(char))
    return text


def shorten(text: str, longest: int) -> str:
    """The text, its middle left out if it has more than `longest` characters.

    Example:
        >>> shorten("abcdefghij", 5)
        'ab…ij'
    """
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 2
    return f"{text[: longest - 1 - tail]}…{text[len(text) - tail :]}"


def markdown(text: str) -> str:
    """The text for Markdown prose or a table cell: no link, mention, tag, emphasis or column comes out of it.

    Example:
        >>> markdown("a|b [x](http://e)")
        'a&#124;b &#91;x&#93;(http&#58;&#47;&#47;e)'
    """
    return "".join(char if char.isalnum() or char in " .,…()→≤%" else _entity(char) for char in terminal(text))


def markdown_code(text: str) -> str:
    """The text as code in Markdown, safe in a table cell.

    Example:
        >>> markdown_code("layer1.{0,1}.*")
        '`layer1.{0,1}.*`'
        >>> markdown_code("a|`b")
        '<code>a&#124;&#96;b</code>'
    """
    shown = terminal(text)
    if shown.strip() == shown and shown and not set(shown) & set("`|\\"):
        return f"`{shown}`"
    return f"<code>{markdown(text)}</code>"


def github_data(text: str) -> str:
    """Lines for what stands after ``::error ...::`` in a workflow command. Escape each untrusted piece before.

    Example:
        >>> github_data("50% of\\n::error::x")
        '50%25 of%0A::error::x'
    """
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def github_property(text: str) -> str:
    """The text for a property of a workflow command: no further property or command comes out of it.

    Example:
        >>> github_property("a.toml,line=9::x")
        'a.toml%2Cline=9%3A%3Ax'
    """
    return github_data(terminal(text)).replace(":", "%3A").replace(",", "%2C")


def sarif_text(text: str) -> str:
    """The text for a message of SARIF: what looks like a link there is none.

    Example:
        >>> sarif_text("[x](http://e)")
        '\\\\[x\\\\](http://e)'
    """
    return re.sub(r"[\\\[\]]", lambda match: f"\\{match[0]}", terminal(text))


def uri(path: str) -> str:
    """A path as a relative URI, or one of scheme ``file`` if it is absolute.

    Example:
        >>> uri("a b/50%.pth"), uri("/tmp/x#1")
        ('a%20b/50%25.pth', 'file:///tmp/x%231')
    """
    from urllib.parse import quote

    try:
        raw = path.encode("utf-8", "surrogateescape")  # the bytes of a name that is no text
    except UnicodeEncodeError:
        raw = path.encode("utf-8", "surrogatepass")
    quoted = quote(raw, safe="/")
    return f"file://{quoted}" if quoted.startswith("/") else quoted


def html_text(text: str) -> str:
    """The text for HTML or XML, in an element or a quoted attribute.

    Example:
        >>> html_text("<b>")
        '&lt;b&gt;'
    """
    return html.escape(terminal(text), quote=True)


def _entity(char: str) -> str:
    return f"&#{ord(char)};"


def _is_hidden(char: str) -> bool:
    return not char.isprintable() or char in _INVISIBLE or 0xE0100 <= ord(char) <= 0xE01EF


def _visible(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shell(text: str) -> str:
    """A word for a command line, in double quotes where a shell would read it otherwise."""
    if not any(char in text for char in "\"\\$`!'") and text.isprintable():
        return text if text.replace(".", "").replace("_", "").isalnum() and text.isascii() else f'"{text}"'
    return shell_quote(text)
