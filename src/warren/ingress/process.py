"""One Caddy process: started or found again, asked over its admin API, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

import msgspec

from warren.errors import OperationFailed, Unreachable
from warren.ingress.asking import ask
from warren.ingress.config import ADMIN_HOST, beginning
from warren.ingress.sites import Json, Settings
from warren.linux.capabilities import CAP_SETPCAP, effective
from warren.linux.peers import peer_of
from warren.linux.processes import Outliving

if TYPE_CHECKING:
    import httpx2

START_WITHIN_S: Final = 20.0
ANSWER_WITHIN_S: Final = 30.0
HUNG_AFTER_S: Final = 20.0
"""Of its admin interface: to an easy question it takes milliseconds, or seconds where the whole machine is busy."""
HOW_TO_INSTALL: Final = "install it (Debian and Ubuntu: apt install caddy, then systemctl disable --now caddy)"

_BY_HAND: Final = "see whether `caddy run` works by hand"
_LOOK_EVERY_S: Final = 0.05
_REFUSALS: Final = 3
"""In a row: then nobody listens there any more."""
_GONE_S: Final = 1.0
"""From the last word to the end."""
_WITHOUT_CAPABILITIES: Final = ("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
_KEPT_VARIABLES: Final = frozenset(
    {"PATH", "LANG", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)


class CaddyProcess:
    """A process in a session of its own, which outlives this object; :meth:`attach` finds it again."""

    def __init__(self, settings: Settings, process: Outliving) -> None:
        self._settings = settings
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, settings: Settings) -> Self:
        """Start Caddy with nothing to do. Raises OperationFailed: not installed, or what it says itself."""
        program = shutil.which("caddy")
        if program is None:
            raise OperationFailed(f"Caddy, which ends TLS and speaks HTTP here, is not installed: {HOW_TO_INSTALL}")
        settings.admin.unlink(missing_ok=True)
        words = settings.sockets / "stderr"
        child = _spawn(program, settings, words)
        process = cls(settings, Outliving(child.pid, child))
        try:
            async with asyncio.timeout(START_WITHIN_S):
                while not settings.admin.exists():
                    if child.poll() is not None:
                        raise OperationFailed(f"Caddy does not start: {_last_words(words)}; {_BY_HAND}")
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError:
            await process.close()
            raise OperationFailed(f"Caddy did not start within {START_WITHIN_S:.0f} s; {_BY_HAND}") from None
        except asyncio.CancelledError:
            child.kill()
            child.wait()
            raise
        return process

    @classmethod
    def attach(cls, settings: Settings) -> Self:
        """Take over a Caddy that runs already, whether it answers or hangs. Raises Unreachable when there is none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            try:
                connection.connect(os.fspath(settings.admin))
                process = cls(settings, Outliving(peer_of(connection).pid))
            except OSError as error:
                raise Unreachable(f"no Caddy answers at {settings.admin}") from error
        return process

    async def config(self) -> Json | None:
        """What it runs with. Raises Unreachable."""
        answer = await self._ask("GET", "/config/", within_s=HUNG_AFTER_S)
        found: Any = msgspec.json.decode(answer.content) if answer.status_code == 200 else None
        return found if isinstance(found, dict) else None

    async def load(self, config: Json) -> None:
        """Run with ``config`` instead, whole: when it raises OperationFailed, with Caddy's words, the earlier one is
        still in force. Raises Unreachable.
        """
        answer = await self._ask("POST", "/load", config, within_s=ANSWER_WITHIN_S)
        if answer.status_code == 200:
            return
        try:
            said: object = msgspec.json.decode(answer.content, type=dict[str, object]).get("error")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            said = None
        raise OperationFailed(f"Caddy refuses its configuration: {said or f'status {answer.status_code}'}")

    async def hangs(self) -> bool:
        """Whether it is there and does not answer; this takes up to :data:`HUNG_AFTER_S`."""
        for _ in range(_REFUSALS):
            try:
                await ask(self._settings.admin, "/metrics", HUNG_AFTER_S)
            except TimeoutError:
                return not await self.ended(_GONE_S)
            except OSError:  # it ends, or its admin interface just begins anew with another configuration
                if await self.ended(_GONE_S):
                    return False
            else:
                return False
        return True

    async def finish(self, within_s: float) -> None:
        """Have it end as soon as the requests are answered that are under way; then, or after that time, it has ended.
        WebSockets end with it.
        """
        self._process.ask_to_end()
        if not await self.ended(within_s):
            await self._process.close()

    async def close(self) -> None:
        """End it; what is under way is cut off."""
        await self._process.close()
        self._settings.admin.unlink(missing_ok=True)

    async def ended(self, within_s: float) -> bool:
        """Wait so long for the end of the process, for whatever reason; whether it came."""
        return await self._process.ended(within_s)

    async def _ask(self, method: str, path: str, content: Json | None = None, *, within_s: float) -> httpx2.Response:
        import httpx2

        transport = httpx2.AsyncHTTPTransport(uds=os.fspath(self._settings.admin))
        try:
            async with httpx2.AsyncClient(transport=transport, timeout=within_s, trust_env=False) as client:
                return await client.request(method, f"http://{ADMIN_HOST}{path}", json=content)
        except httpx2.RequestError as error:
            raise Unreachable(f"Caddy does not answer at {self._settings.admin}: {error}") from error


def _spawn(program: str, settings: Settings, words: Path) -> subprocess.Popen[bytes]:
    """Its directories are its own, whatever HOME says, and it gets nothing of our environment that it does not need."""
    command = [*_privileges(), program, "run", "--config", "-"]
    home = os.fspath(settings.storage)
    environment = {name: value for name, value in os.environ.items() if name.upper() in _KEPT_VARIABLES}
    environment |= {"HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
    with words.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=settings.storage,
            start_new_session=True,
            umask=0o077,
        )
    _hand_over(child.stdin, msgspec.json.encode(beginning(settings)))
    return child


def _privileges() -> list[str]:
    """A command in front of Caddy's: it needs no capabilities, and can get none then."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    return [setpriv, "--no-new-privs", *(_WITHOUT_CAPABILITIES if CAP_SETPCAP in effective() else ())]


def _hand_over(pipe: IO[bytes] | None, data: bytes) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError), pipe:  # it has ended: its last words say why
            pipe.write(data)


def _last_words(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1][-500:] if lines else "it ended without a word"
