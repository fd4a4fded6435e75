"""What a node lets in is what the policy says of it, services included: the rules are read as the kernel reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.nft_reading import OPENERS_PORT, Chains
from tests.support.policy_flows import ADDRESSES, HOME, MEMBERS, PLACES, RULES, SERVICES, A, B, rule
from warren.l3.firewall import Own, ruleset
from warren.model.documents import Rule
from warren.model.members import Member
from warren.model.policy import Flow, resolve, verdict
from warren.model.serving import service_addresses
from warren.model.tunnel import IPAddress

PORTS = st.sampled_from([1, 21, 22, 53, 80, 8000, 49_151, 49_152, 50_001, 65_535])


def own(member: Member) -> Own:
    served = tuple(service_addresses(SERVICES, (member,)))
    return Own((member.address6, *served), member.address4, member.routes, (HOME.prefix6,))


FLOWS = (
    st.sampled_from(["tcp", "udp", "icmp"])
    .flatmap(
        lambda protocol: st.builds(
            Flow, ADDRESSES, PLACES, st.just(protocol), st.none() if protocol == "icmp" else PORTS
        )
    )
    .filter(lambda flow: flow.source.version == flow.destination.version)
)


@given(
    rules=st.lists(RULES, min_size=1, max_size=5),
    flows=st.lists(FLOWS, min_size=1, max_size=8),
    me=st.sampled_from(MEMBERS),
)
def test_what_passes_is_what_the_policy_permits(rules: list[Rule], flows: list[Flow], me: Member) -> None:
    """Out of the overlay what may come, and answers to what may go or that may come by themselves; into it answers to
    what may come.
    """
    policy = HOME.spec(policy=tuple(rules), services=SERVICES).document
    mine = own(me)
    chains = Chains.of(ruleset("home", mine, resolve(policy, MEMBERS)))

    def is_mine(address: IPAddress) -> bool:
        return address in mine.addresses or any(address in route for route in mine.routes)

    def may(*flows: Flow) -> bool:
        return any(verdict(policy, MEMBERS, flow).allowed for flow in flows)

    for flow in flows:
        arrives = is_mine(flow.destination) and may(flow)
        assert chains.verdict("inbound", flow) == ("accept" if arrives else "drop"), flow
        assert chains.verdict("outbound", flow, answer=True) == ("accept" if arrives else "drop"), flow
        back = Flow(flow.destination, flow.source, flow.protocol, None if flow.port is None else OPENERS_PORT)
        returns = is_mine(flow.source) and may(flow, back)
        assert chains.verdict("inbound", flow, answer=True) == ("accept" if returns else "drop"), flow


def test_a_service_alone_is_open_at_its_port_and_its_high_ports() -> None:
    policy = HOME.spec(policy=(rule("allow", "members", "service:files", "tcp", "21"),), services=SERVICES).document
    chains = Chains.of(ruleset("home", own(A), resolve(policy, MEMBERS)))

    def passes(port: int, at: str) -> bool:
        destination = A.service_address(at) if at else A.address6
        return chains.verdict("inbound", Flow(B.address6, destination, "tcp", port)) == "accept"

    assert [passes(port, "files") for port in (21, 49_152, 65_535, 22, 49_151)] == [True, True, True, False, False]
    assert not any(passes(port, at) for port in (21, 49_152, 65_535) for at in ("page", ""))
