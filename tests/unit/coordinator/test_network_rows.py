from __future__ import annotations

from tests.support.coordinators import World, run
from warren.model.documents import Rule
from warren.proto.control.administration import InviteRequest
from warren.proto.control.desired_state import DesiredState


def test_tags_of_open_invites_may_be_spoken_of_before_anybody_has_them() -> None:
    async def scenario(w: World) -> None:
        wanted = DesiredState(policy=(Rule(action="allow", sources=("tag:ci",), destinations=("members",)),))
        assert (await w.service.plan(w.admin, "home", wanted)).problems != ()
        await w.service.create_invite(w.admin, "home", InviteRequest(tags=("ci",)))
        assert (await w.service.plan(w.admin, "home", wanted)).problems == ()

    run(scenario)
