"""The lines of a TOML document: of everything that it holds, and of nothing else."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from warren.toml.lines import line_of, lines_of, path_text

DOCUMENT = '''\
# a comment with "quotes" [and] {more}
title = "a # is no comment here"   # but here
"quoted key" = 1
a.b.c = [ 1, 2,
  # between
  "three\\\\", [4,
    5], { x = 1, y = [
      6 ] },
]
long = """
not_a_key = 1
[not_a_table]
\\""" still inside"""
literal = \'\'\'
raw \\ ' and '' inside\'\'\'
when = 1979-05-27 07:32:00

[table]
key = true
[ table . "sub.dotted" ]
\'one\' = 0x10

[[list]]
n = 1
[list.inner]
m = 2
[[list.deep]]
o = 3

[[list]]
n = 4
[[list.deep]]
o = 5
[[list.deep]]
o = 6
'''


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*path, index))


def test_everything_in_a_document_has_its_line() -> None:
    lines = lines_of(DOCUMENT)
    assert set(lines) == set(paths(tomllib.loads(DOCUMENT)))
    assert lines["title",] == 2
    assert lines["quoted key",] == 3
    assert lines["a", "b", "c"] == 4
    assert lines["a", "b", "c", 0] == 4
    assert lines["a", "b", "c", 2] == 6
    assert lines["a", "b", "c", 3, 1] == 7
    assert lines["a", "b", "c", 4, "y", 0] == 8
    assert lines["long",] == 10
    assert lines["table",] == 18
    assert lines["table", "sub.dotted", "one"] == 21
    assert lines["list",] == 23
    assert lines["list", 0, "inner", "m"] == 26
    assert lines["list", 1] == 30
    assert lines["list", 1, "deep", 1, "o"] == 35


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    lines = lines_of(DOCUMENT)
    assert line_of(("list", 1, "missing", 3), lines) == 30
    assert line_of(("nothing",), lines) == 1


def test_a_path_reads_like_in_a_program() -> None:
    assert path_text(("policy", 2, "from")) == "policy[2].from"


keys = st.sampled_from(["a", "b-1", "_x", "long_name", '"q.u o"', "'l#it'"])
scalars = st.sampled_from(
    ["1", "-2.5", "true", '"te[x]t = {#}"', "'lit\\'", '"""m\n\\"x\n"""', "'''\nn''n'''", "1979-05-27 07:32:00", '""']
)
blanks = st.sampled_from(["", " ", "\t"])
breaks = st.sampled_from(["", "\n", " # ] comment\n", "\n\n  "])


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    element = st.tuples(breaks, inner, breaks).map("".join)
    return st.tuples(st.lists(element, max_size=3).map(",".join), breaks).map(lambda parts: f"[{''.join(parts)}]")


def inline_tables(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.dictionaries(keys, inner, max_size=2)
    return pairs.map(lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}")


values = st.recursive(scalars, lambda inner: st.one_of(arrays(inner), inline_tables(inner)), max_leaves=6)
bodies = st.dictionaries(keys, values, max_size=3).map(
    lambda body: "".join(f"{key}={value} # end\n" for key, value in body.items())
)


@given(bodies, st.lists(st.tuples(blanks, bodies), max_size=3), st.dictionaries(keys, bodies, max_size=3))
def test_any_document_is_walked_like_it_is_read(
    top: str, elements: list[tuple[str, str]], tables: dict[str, str]
) -> None:
    text = "top = 0\n" + top
    text += "".join(f"[[{blank}list{blank}]]\n{body}" for blank, body in elements)
    text += "".join(f"[table.{key}]\n{body}" for key, body in tables.items())
    assert set(lines_of(text)) == set(paths(tomllib.loads(text)))
