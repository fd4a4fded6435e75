"""Where a coordinator is: the options that name its state, its URL, and what its extra has to bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from warren.errors import OperationFailed, UsageError

_STATE = "/var/lib/warren-coordinator"


def place(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say where the coordinator keeps its state."""
    state = click.option(
        "--state",
        metavar="DIR",
        default=_STATE,
        envvar="WARREN_COORDINATOR_STATE",
        show_default=True,
        type=click.Path(path_type=Path),
        help="Where keys and the database are kept.",
    )
    database = click.option(
        "--database",
        metavar="URL",
        envvar="WARREN_DATABASE",
        help="sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME; by default a file in the state directory.",
    )
    return state(database(function))


@contextmanager
def extra() -> Iterator[None]:
    """What the extra ``coordinator`` brings is imported inside: some of it at once, some when it is needed first."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "warren"}:
            raise
        raise OperationFailed(
            f"the coordinator needs {missing}, which is not installed; run `pip install 'warren[coordinator]'`"
        ) from None


def url_of(text: str) -> str:
    """``HOST``, ``HOST:PORT`` or ``https://HOST:PORT``, as the last of these. Raises UsageError."""
    import msgspec

    from warren.model.parts import Url

    url = text if "://" in text else f"https://{text}"
    try:
        return msgspec.convert(url.rstrip("/"), Url)
    except msgspec.ValidationError:
        raise UsageError(f"{text} is no URL of a coordinator; write it like https://warren.example.com:8443") from None
