"""A language model's text, as it comes, split into the output fields that an adapter will read from it in the end."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from typing import Any, Final, Protocol, Union, get_args, get_origin
from xml.parsers import expat

import dspy

Delta = tuple[str, str]
"""The name of a field and a piece of its text."""


def is_text(annotation: Any) -> bool:
    """Whether a field of that type streams: what the adapters read for it is the text as the model wrote it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return set(get_args(annotation)) == {str, type(None)}
    return annotation is str or annotation is dspy.Reasoning


class FieldSplitter(Protocol):
    """Takes text in pieces of any size, yields the pieces of text fields that are certain by then."""

    def feed(self, text: str) -> Iterator[Delta]:
        """What `text` adds."""
        ...


def splitter_for(adapter: Any, signature: Any) -> FieldSplitter:
    """The splitter for what `adapter` asks a model to write; for an adapter that is not known, one that yields nothing.

    A field that is not streamed here arrives whole, when the adapter has read it.
    """
    names = frozenset(name for name, field in signature.output_fields.items() if is_text(field.annotation))
    if isinstance(adapter, dspy.JSONAdapter):
        return JSONSplitter(names)
    if type(adapter) is dspy.ChatAdapter:
        return ChatSplitter(names, frozenset(signature.output_fields))
    if type(adapter) is dspy.XMLAdapter:
        return XMLSplitter(names)
    return _Whole()


class _Whole:
    def feed(self, text: str) -> Iterator[Delta]:
        return iter(())


class _Stripped:
    """A text that comes in pieces, without the space around it."""

    def __init__(self) -> None:
        self.space = ""  # held back: it counts only when text follows
        self._has_begun = False

    def take(self, text: str) -> str:
        """What `text` adds; empty while that is not certain."""
        body = text.rstrip()
        if not body:
            self.space += text
            return ""
        lead = self.space if self._has_begun else ""
        self.space = text[len(body) :]
        if not self._has_begun:
            body = body.lstrip()
        self._has_begun = True
        return lead + body


_HEADER: Final = re.compile(r"\[\[ ## (\w+) ## \]\]")
_HEADER_BEGINNING: Final = re.compile(r"\[(\[( (#(#( (\w+( (#(#( (\](\])?)?)?)?)?)?)?)?)?)?)?)?")
_BREAKS: Final = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


class ChatSplitter:
    """ChatAdapter's text: a field's value stands in the lines below its header, a line that begins `[[ ## name ## ]]`.

    Follows `ChatAdapter.parse`: every break of `str.splitlines` is a newline, a value is stripped, the first of two
    fields of one name counts.
    """

    def __init__(self, streamed: frozenset[str], known: frozenset[str]) -> None:
        self._streamed = streamed
        self._known = known
        self._seen: set[str] = set()
        self._field: str | None = None
        self._line = ""  # of the current line, what may still become a header
        self._is_text = False  # whether the current line is certainly no header
        self._value = _Stripped()
        self._is_header_line = False

    def feed(self, text: str) -> Iterator[Delta]:
        """What `text` adds."""
        if self._is_text and not self._line and _BREAKS.search(text) is None:
            yield from self._text(text)
            return
        text = self._line + text
        self._line = ""
        if text.endswith("\r"):
            # Half of a break, perhaps.
            text, self._line = text[:-1], "\r"
        position = 0
        for match in _BREAKS.finditer(text):
            yield from self._take(text[position : match.start()], is_whole=True)
            position = match.end()
        rest = text[position:]
        if rest:
            held = self._line
            self._line = ""
            yield from self._take(rest, is_whole=False)
            self._line += held

    def _take(self, line: str, *, is_whole: bool) -> Iterator[Delta]:
        if not self._is_text:
            start = line.lstrip()
            if match := _HEADER.match(start):
                # Cut from the line as the adapter cuts it: of an indented header, its own end counts as text.
                yield from self._begin(match.group(1), line[match.end() :], is_whole=is_whole)
                return
            if not is_whole and (not start or _HEADER_BEGINNING.fullmatch(start)):
                self._line = line
                return
        self._is_text = not is_whole
        yield from self._text(line)
        if is_whole:
            self._end_line()

    def _begin(self, name: str, rest: str, *, is_whole: bool) -> Iterator[Delta]:
        self._field = name if name in self._known and name not in self._seen else None
        self._seen.add(name)
        self._value = _Stripped()
        self._is_text, self._is_header_line = True, True
        yield from self._text(rest)
        if is_whole:
            self._end_line()

    def _end_line(self) -> None:
        # What stands behind a header on its own line is stripped by itself.
        self._value.space = "\n" if self._is_header_line else self._value.space + "\n"
        self._is_text = self._is_header_line = False

    def _text(self, text: str) -> Iterator[Delta]:
        if self._field in self._streamed and (delta := self._value.take(text)):
            yield (self._field or "", delta)


class XMLSplitter:
    """XMLAdapter's text: a field's value stands in the element of its name, and is stripped.

    Where a value holds elements itself, the adapter takes its markup as text: the rest of it arrives when it is whole.
    """

    def __init__(self, streamed: frozenset[str]) -> None:
        self._streamed = streamed
        self._seen: set[str] = set()
        self._path: list[str] = []
        self._field: str | None = None
        self._value = _Stripped()
        self._deltas: list[Delta] = []
        self._is_broken = False
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        if hasattr(self._parser, "SetReparseDeferralEnabled"):
            # Newer versions of expat would otherwise wait for more before they tell anything.
            self._parser.SetReparseDeferralEnabled(False)
        self._parser.Parse("<root>")

    def feed(self, text: str) -> Iterator[Delta]:
        """What `text` adds."""
        if not self._is_broken:
            try:
                self._parser.Parse(text.encode("utf-8", "replace"))
            except expat.ExpatError:
                # The adapter will not be able to read it either, and says so.
                self._is_broken = True
        deltas, self._deltas = self._deltas, []
        return iter(deltas)

    def _start(self, name: str, attributes: Any) -> None:
        self._field = None
        if len(self._path) == 1:
            self._field = name if name in self._streamed and name not in self._seen else None
            self._seen.add(name)
            self._value = _Stripped()
        self._path.append(name)

    def _end(self, name: str) -> None:
        self._path.pop()
        self._field = None

    def _text(self, text: str) -> None:
        if self._field is not None and (delta := self._value.take(text)):
            self._deltas.append((self._field, delta))


class JSONSplitter:
    """JSONAdapter's text: an object; the string values of its own keys are decoded as they come."""

    def __init__(self, streamed: frozenset[str]) -> None:
        self._streamed = streamed
        self._state = self._before
        self._depth = 0
        self._key = ""
        self._escape = ""
        self._high = ""  # an escaped high surrogate, which waits for its other half
        self._out = ""

    def feed(self, text: str) -> Iterator[Delta]:
        """What `text` adds."""
        position = 0
        while position < len(text):
            if self._state == self._in_value and not self._escape and (plain := _PLAIN.match(text, position)):
                self._out += self._lone_half() + plain.group()
                position = plain.end()
                continue
            key = self._key
            self._state(text[position])
            position += 1
            if self._out and (self._state != self._in_value or key != self._key):
                yield from self._flush(key)
        yield from self._flush(self._key)

    def _flush(self, key: str) -> Iterator[Delta]:
        out, self._out = self._out, ""
        if out and key in self._streamed:
            yield (key, out)

    def _before(self, character: str) -> None:
        if character == "{":
            self._state = self._between

    def _between(self, character: str) -> None:
        if character == '"':
            self._key, self._escape, self._high = "", "", ""
            self._state = self._in_key
        elif character == "}":
            self._state = self._after

    def _after(self, character: str) -> None:
        """Whatever follows the object."""

    def _in_key(self, character: str) -> None:
        if character == '"' and not self._escape:
            self._key += self._lone_half()
            self._state = self._after_key
        else:
            self._key += self._decode(character)

    def _after_key(self, character: str) -> None:
        if character == '"':
            self._state = self._in_value
        elif character not in ": \t\r\n":
            self._depth = 0
            self._state = self._in_other
            self._in_other(character)

    def _in_value(self, character: str) -> None:
        if character == '"' and not self._escape:
            self._out += self._lone_half()
            self._state = self._between
        else:
            self._out += self._decode(character)

    def _in_other(self, character: str) -> None:
        if character == '"':
            self._state = self._in_nested_string
        elif character in "[{":
            self._depth += 1
        elif character in "]}":
            self._depth -= 1
        if self._depth <= 0 and character in ",]}":
            self._state = self._after if self._depth < 0 else self._between

    def _in_nested_string(self, character: str) -> None:
        if self._escape:
            self._escape = ""
        elif character == "\\":
            self._escape = character
        elif character == '"':
            self._state = self._in_other

    def _decode(self, character: str) -> str:
        if not self._escape and character != "\\":
            return self._lone_half() + character
        self._escape += character
        if len(self._escape) < (6 if self._escape[1:2] == "u" else 2):
            return ""
        escape, self._escape = self._escape, ""
        if _HIGH_SURROGATE.match(escape):
            lone, self._high = self._lone_half(), escape
            return lone
        if _LOW_SURROGATE.match(escape):
            escape, self._high = self._high + escape, ""
        lone = self._lone_half()
        try:
            # Half of a surrogate pair can be written as an escape and cannot be sent on.
            return lone + str(json.loads(f'"{escape}"', strict=False)).encode("utf-8", "replace").decode("utf-8")
        except ValueError:
            return lone + escape

    def _lone_half(self) -> str:
        lone, self._high = self._high, ""
        return "?" if lone else ""


_PLAIN: Final = re.compile(r'[^"\\]+')
_HIGH_SURROGATE: Final = re.compile(r"\\u[dD][89abAB]")
_LOW_SURROGATE: Final = re.compile(r"\\u[dD][c-fC-F]")
