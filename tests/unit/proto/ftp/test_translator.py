"""The machine between client and server, with both played by hand."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.targets import ftp_control
from warren.model.tunnel import TransportAddress
from warren.proto.ftp.actions import Action, EndToServer, Join, Note, Offer, Over, ToClient, ToServer, Withdraw
from warren.proto.ftp.translator import QUEUED_MAX, Translator

CLIENT, LOCAL, SERVER = ip_address("192.0.2.7"), ip_address("192.0.2.1"), ip_address("203.0.113.1")
EPSV = b"229 Entering Extended Passive Mode (|||6446|)"


class Play:
    """A translator whose server has greeted. What is said is without the ends of lines."""

    def __init__(self) -> None:
        self.machine = Translator(client=CLIENT, local=LOCAL, server=SERVER)
        assert self.server(b"220 Ready") == ["< 220 Ready"]

    def client(self, *lines: bytes) -> list[str]:
        self.machine.receive_client(b"".join(line + b"\r\n" for line in lines))
        return self.done()

    def server(self, *lines: bytes) -> list[str]:
        self.machine.receive_server(b"".join(line + b"\r\n" for line in lines))
        return self.done()

    def done(self) -> list[str]:
        return [_shown(action) for action in self.machine.take_actions()]

    def passive(self, verb: bytes = b"EPSV", number: int = 1) -> None:
        """Up to where the client knows a port."""
        assert self.client(verb) == ["> EPSV"]
        assert self.server(EPSV) == [f"offer {number} for 6446"]
        self.machine.offered(number, 51_210)
        (answer,) = self.done()
        assert "51210" in answer or "200,10" in answer

    def active(self) -> None:
        assert self.client(b"PORT 192,0,2,7,200,10") == ["> EPSV"]
        assert self.server(EPSV) == ["< 200 PORT command successful."]


def _shown(action: Action) -> str:
    match action:
        case ToClient(data):
            return "< " + data.decode("latin-1").removesuffix("\r\n")
        case ToServer(data, urgent):
            return ("!> " if urgent else "> ") + data.decode("latin-1").removesuffix("\r\n")
        case Offer(number, port):
            return f"offer {number} for {port}"
        case Join(number, port, client):
            return f"join {number}: {port} with {client}"
        case Withdraw(number):
            return f"withdraw {number}"
        case Note(sentence):
            return f"note: {sentence}"
        case EndToServer():
            return "end"
        case Over():
            return "over"


@pytest.fixture
def play() -> Play:
    return Play()


# One after another


def test_commands_and_replies_pass_unchanged(play: Play) -> None:
    assert play.client(b"site  chmod 600 \xe4 ") == ["> site  chmod 600 ä "]
    assert play.server(b"200-one", b" two", b"200 three") == ["< 200-one", "<  two", "< 200 three"]


def test_nothing_is_said_before_the_greeting() -> None:
    machine = Translator(client=CLIENT, local=LOCAL, server=SERVER)
    machine.receive_client(b"USER a\r\n")
    assert machine.take_actions() == []
    machine.receive_server(b"120 Soon\r\n")
    assert machine.take_actions() == [ToClient(b"120 Soon\r\n")]
    machine.receive_server(b"220 Ready\r\n")
    assert machine.take_actions() == [ToClient(b"220 Ready\r\n"), ToServer(b"USER a\r\n")]


def test_what_is_sent_ahead_waits_for_its_turn(play: Play) -> None:
    assert play.client(b"CWD a", b"AUTH TLS", b"PWD") == ["> CWD a"]
    first, second, third = play.server(b"250 OK")
    assert (first, second[:6], third) == ("< 250 OK", "< 534 ", "> PWD")


def test_a_command_does_not_go_out_while_the_server_has_more_to_say(play: Play) -> None:
    """A name of a file with a line feed in it, in a reply, must not answer the next command."""
    play.client(b"PWD", b"EPSV")
    said = play.server(b'257 "a', b'229 Entering Extended Passive Mode (|||6379|)"')
    assert (said[0], said[-1]) == ('< 257 "a', "over")
    assert "> EPSV" not in said
    other = Play()
    other.client(b"PWD", b"EPSV")
    other.machine.receive_server(b'257 "a\r\n229 Enter')
    assert other.done() == ['< 257 "a']
    other.machine.receive_server(b'ing (|||6379|)"\r\n')
    assert other.done()[-1] == "over"


def test_the_driver_is_told_when_the_client_is_too_far_ahead(play: Play) -> None:
    play.client(*[b"NOOP"] * (QUEUED_MAX + 1))
    assert play.machine.is_full
    play.server(b"200 OK")
    play.server(b"200 OK")
    assert not play.machine.is_full


def test_the_end_of_the_client_is_passed_on_after_its_last_command(play: Play) -> None:
    play.client(b"NOOP", b"QUIT")
    play.machine.client_ended()
    assert play.done() == []
    assert play.server(b"200 OK") == ["< 200 OK", "> QUIT", "end"]
    assert play.server(b"221 Bye") == ["< 221 Bye"]


# The client comes


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        (b"PASV", "< 227 Entering Passive Mode (192,0,2,1,200,10)."),
        (b"EPSV", "< 229 Entering Extended Passive Mode (|||51210|)"),
        (b"EPSV 1", "< 229 Entering Extended Passive Mode (|||51210|)"),
    ],
)
def test_in_passive_mode_the_client_is_told_the_helpers_own_port(play: Play, verb: bytes, answer: str) -> None:
    assert play.client(verb) == ["> EPSV"]
    assert play.server(EPSV) == ["offer 1 for 6446"]
    play.machine.offered(1, 51_210)
    assert play.done() == [answer]
    assert play.client(b"RETR a") == ["> RETR a"]
    play.machine.arrived(1)
    play.machine.opened(1)
    assert play.server(b"150 Here") == ["< 150 Here"]
    assert play.server(b"226 Done") == ["< 226 Done", "withdraw 1"]


def test_another_address_can_be_announced() -> None:
    machine = Translator(client=CLIENT, local=LOCAL, server=SERVER, announced=ip_address("198.51.100.1"))
    machine.receive_server(b"220 x\r\n")
    machine.receive_client(b"PASV\r\n")
    machine.receive_server(EPSV + b"\r\n")
    machine.offered(1, 51_210)
    assert machine.take_actions()[-1] == ToClient(b"227 Entering Passive Mode (198,51,100,1,200,10).\r\n")


def test_a_transfer_waits_for_a_data_connection_that_is_being_made(play: Play) -> None:
    play.passive()
    play.machine.arrived(1)
    assert play.client(b"STOR a", b"NOOP") == []
    play.machine.opened(1)
    assert play.done() == ["> STOR a"]


def test_a_transfer_whose_data_connection_fails_does_not_reach_the_server(play: Play) -> None:
    play.passive()
    play.machine.arrived(1)
    assert play.client(b"STOR a") == []
    play.machine.failed(1, "the server refuses")
    assert play.done() == ["< 425 No data connection: the server refuses."]
    assert play.client(b"STOR a") == ["< 425 Say PASV, EPSV, PORT or EPRT first."]


def test_a_data_connection_that_failed_before_the_transfer_is_told_of_then(play: Play) -> None:
    play.passive()
    play.machine.arrived(1)
    play.machine.failed(1, "the server refuses")
    assert play.done() == []
    assert play.client(b"LIST") == ["< 425 No data connection: the server refuses."]


def test_a_data_connection_that_fails_during_the_transfer_is_told_of_once(play: Play) -> None:
    play.passive()
    play.client(b"LIST", b"NOOP")
    play.machine.failed(1, "nobody came")
    assert play.done() == ["< 425 No data connection: nobody came."]
    assert play.server(b"425 Time is over") == ["> NOOP"]


def test_a_listener_that_cannot_be_had_is_told_of(play: Play) -> None:
    play.client(b"PASV", b"PWD")
    play.server(EPSV)
    play.machine.failed(1, "no port is free")
    assert play.done() == ["< 425 No data connection: no port is free.", "> PWD"]


def test_a_port_is_offered_for_one_transfer(play: Play) -> None:
    play.passive()
    play.client(b"RETR a")
    assert play.server(b"550 No such file") == ["< 550 No such file", "withdraw 1"]
    assert play.client(b"RETR b") == ["< 425 Say PASV, EPSV, PORT or EPRT first."]


def test_the_second_of_two_offers_takes_the_place_of_the_first(play: Play) -> None:
    play.passive()
    assert play.client(b"PASV") == ["withdraw 1", "> EPSV"]
    assert play.server(EPSV) == ["offer 2 for 6446"]
    play.machine.offered(2, 51_211)
    play.done()
    play.machine.failed(1, "too late")
    play.machine.opened(1)
    assert play.client(b"RETR a") == ["> RETR a"]


def test_a_flood_of_pasv_asks_once_at_a_time(play: Play) -> None:
    assert play.client(*[b"PASV"] * 1000) == ["> EPSV"]
    for number in range(1, 20):
        assert play.server(EPSV) == [f"offer {number} for 6446"]
        play.machine.offered(number, 51_210)
        assert play.done()[1:] == [f"withdraw {number}", "> EPSV"]


def test_epsv_all_forbids_the_others_and_stays_here(play: Play) -> None:
    assert play.client(b"EPSV ALL") == ["< 200 EPSV ALL command successful."]
    for other in (b"PASV", b"PORT 192,0,2,7,200,10", b"EPRT |1|192.0.2.7|5000|"):
        assert play.client(other) == ["< 501 Only EPSV after EPSV ALL."]
    play.passive()


# The client is gone to


def test_in_active_mode_both_sides_are_connected_before_the_server_hears_of_the_transfer(play: Play) -> None:
    play.active()
    assert play.client(b"STOR a") == ["join 1: 6446 with 192.0.2.7:51210"]
    play.machine.opened(1)
    assert play.done() == ["> STOR a"]
    assert play.server(b"226 Done") == ["< 226 Done", "withdraw 1"]


def test_a_client_that_cannot_be_connected_to_costs_no_file(play: Play) -> None:
    play.active()
    play.client(b"STOR a")
    play.machine.failed(1, "the client refuses")
    assert play.done() == ["< 425 No data connection: the client refuses."]
    assert play.client(b"NOOP") == ["> NOOP"]


@pytest.mark.parametrize("line", [b"PORT 10,0,0,5,200,10", b"PORT 192,0,2,7,0,22", b"EPRT |1|10.0.0.5|5000|"])
def test_a_bounce_is_refused_noted_and_unheard_of_by_the_server(play: Play, line: bytes) -> None:
    note, answer = play.client(line)
    assert note.startswith("note: ")
    assert answer.startswith("< 504 ")
    assert play.client(b"RETR a") == ["< 425 Say PASV, EPSV, PORT or EPRT first."]


def test_a_command_hidden_in_a_file_name_is_refused_whole(play: Play) -> None:
    (answer,) = play.client(b"RETR a\rPORT 10,0,0,5,0,22")
    assert answer.startswith("< 500 ")
    (answer,) = play.client(b"RETR a\0b")
    assert answer.startswith("< 500 ")


# The server


def test_epsv_that_is_refused_becomes_pasv(play: Play) -> None:
    assert play.client(b"EPSV") == ["> EPSV"]
    assert play.server(b"500-What", b"500 ?") == ["> PASV"]
    assert play.server(b"227 Entering Passive Mode (203,0,113,1,25,46)") == ["offer 1 for 6446"]
    play.machine.offered(1, 51_210)
    play.done()
    assert play.client(b"PASV") == ["withdraw 1", "> PASV"]


def test_another_host_in_a_227_is_noted_and_its_port_alone_used(play: Play) -> None:
    play.client(b"EPSV")
    play.server(b"500 ?")
    note, offer = play.server(b"227 Entering Passive Mode (10,0,0,5,25,46)")
    assert "10.0.0.5" in note
    assert offer == "offer 1 for 6446"


def test_a_refusal_is_passed_on_as_it_is(play: Play) -> None:
    play.client(b"PASV")
    assert play.server(b"530 Log in first.") == ["< 530 Log in first."]


def test_a_preliminary_reply_is_no_answer_to_epsv(play: Play) -> None:
    play.client(b"PASV")
    assert play.server(b"120 Soon") == []
    assert play.server(EPSV) == ["offer 1 for 6446"]


@pytest.mark.parametrize("text", [b"227 Entering Passive Mode (10,0,0,5,25,46)", EPSV, b"228 x"])
def test_a_server_that_speaks_of_data_unasked_is_left(play: Play, text: bytes) -> None:
    play.client(b"NOOP")
    note, goodbye, over = play.server(text)
    assert note.startswith("note: ")
    assert goodbye.startswith("< 421 ")
    assert over == "over"
    assert play.client(b"NOOP") == play.server(b"200 OK") == []


@pytest.mark.parametrize("text", [EPSV, b"200 OK", b"150 Here", b"SSH-2.0-OpenSSH_9.2"])
def test_a_server_that_replies_to_nothing_is_left(play: Play, text: bytes) -> None:
    assert play.server(text)[-1] == "over"


def test_a_server_may_take_leave_at_any_time(play: Play) -> None:
    assert play.server(b"421 Timeout") == ["< 421 Timeout"]


def test_a_client_that_has_left_is_told_nothing_more(play: Play) -> None:
    """pure-ftpd says goodbye with the code of its last reply."""
    play.client(b"QUIT")
    play.machine.client_ended()
    assert play.done() == ["end"]
    assert play.server(b"221 Bye", b"229 Logout.") == ["< 221 Bye"]


def test_a_server_that_does_not_speak_ftp_is_left() -> None:
    machine = Translator(client=CLIENT, local=LOCAL, server=SERVER)
    machine.receive_server(b"SSH-2.0-OpenSSH_9.2\r\n")
    note, goodbye, over = map(_shown, machine.take_actions())
    assert (note, over) == ("note: the server does not speak FTP", "over")
    assert goodbye.startswith("< 421 ")


def test_a_reply_without_end_is_not_waited_for(play: Play) -> None:
    for _ in range(20):
        play.machine.receive_server(b"2" * 65_536)
    assert play.done()[-1] == "over"


def test_features_are_corrected(play: Play) -> None:
    play.client(b"FEAT")
    assert play.server(b"211-x", b" AUTH TLS", b"211 End") == ["< 211-x", "<  EPRT", "<  EPSV", "< 211 End"]


# TLS, and others


@pytest.mark.parametrize(
    ("line", "code"),
    [(b"AUTH TLS", "534"), (b"AUTH SSL", "534"), (b"PBSZ 0", "503"), (b"PROT P", "503"), (b"CPSV", "502")],
)
def test_tls_and_unknown_ways_to_data_are_refused_here(play: Play, line: bytes, code: str) -> None:
    (answer,) = play.client(line)
    assert answer.startswith(f"< {code} ")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"POST / HTTP/1.1\r\nPORT 192,0,2,7,200,10\r\n"])
def test_a_client_of_another_protocol_is_told_and_left(play: Play, data: bytes) -> None:
    play.machine.receive_client(data)
    note, goodbye, over = play.done()
    assert note.startswith("note: the client ")
    assert goodbye.startswith("< 421 ")
    assert over == "over"


def test_a_command_without_end_is_not_waited_for(play: Play) -> None:
    for _ in range(20):
        play.machine.receive_client(b"A" * 65_536)
    assert play.done()[-1] == "over"


def test_telnet_options_are_refused(play: Play) -> None:
    play.machine.receive_client(b"\xff\xfd\x01NOOP\r\n")
    assert play.machine.take_actions() == [ToClient(b"\xff\xfc\x01"), ToServer(b"NOOP\r\n")]


# While a transfer runs


def transfer(play: Play) -> None:
    play.passive()
    play.machine.arrived(1)
    play.machine.opened(1)
    play.client(b"RETR a")
    play.server(b"150 Here")


def test_abor_overtakes_and_two_replies_follow(play: Play) -> None:
    transfer(play)
    assert play.client(b"ABOR", b"PWD") == ["> ABOR"]
    assert play.server(b"426 Aborted") == ["< 426 Aborted", "withdraw 1", "> PWD"]
    assert play.server(b"226 Abort successful", b"257 /") == ["< 226 Abort successful", "< 257 /"]


def test_abor_is_as_urgent_as_the_client_has_it(play: Play) -> None:
    transfer(play)
    assert play.client(b"\xff\xf4\xff\xf2ABOR") == ["!> ABOR"]
    play.server(b"426 x", b"226 x")
    assert play.client(b"\xff\xfd\x01ABOR")[1:] == ["> ABOR"]


@pytest.mark.parametrize("then", [b"PWD", b"EPSV", b"RETR b"])
def test_an_abor_that_is_not_answered_holds_nothing_up(play: Play, then: bytes) -> None:
    transfer(play)
    play.client(b"ABOR")
    play.server(b"226 Done")
    if then == b"RETR b":
        play.passive(number=2)
    sent = "EPSV" if then == b"EPSV" else then.decode()
    assert play.client(then, b"NOOP") == [f"> {sent}"]
    if then == b"EPSV":
        assert play.server(EPSV) == ["offer 2 for 6446"]
    elif then == b"PWD":
        assert play.server(b"257 /") == ["< 257 /", "> NOOP"]
    else:
        assert play.server(b"150 x", b"226 x")[-1] == "> NOOP"


def test_many_abors_that_are_not_answered_are_held_up(play: Play) -> None:
    assert len(play.client(*[b"ABOR"] * 1000)) == 8


def test_abor_takes_plain_commands_before_it_along(play: Play) -> None:
    transfer(play)
    assert play.client(b"NOOP") == []
    assert play.client(b"ABOR", b"EPSV") == ["> NOOP", "> ABOR"]
    assert play.server(b"226 x") == ["< 226 x", "withdraw 1"]
    assert play.server(b"200 x") == ["< 200 x", "> EPSV"]
    assert play.server(b"225 x", EPSV) == ["< 225 x", "offer 2 for 6446"]


def test_abor_does_not_overtake_what_asks_for_another_data_connection(play: Play) -> None:
    transfer(play)
    assert play.client(b"EPSV", b"ABOR") == []


def test_abor_without_a_transfer_is_a_plain_command(play: Play) -> None:
    assert play.client(b"ABOR") == ["> ABOR"]


def test_the_reply_to_stat_may_come_first(play: Play) -> None:
    transfer(play)
    assert play.client(b"STAT") == ["> STAT"]
    assert play.server(b"213-Status", b" half", b"213 End") == ["< 213-Status", "<  half", "< 213 End"]
    assert play.client(b"PWD") == []
    assert play.server(b"226 Done") == ["< 226 Done", "withdraw 1", "> PWD"]


def test_a_second_150_ends_a_transfer_as_pure_ftpd_has_it(play: Play) -> None:
    transfer(play)
    assert play.client(b"ABOR", b"PWD") == ["> ABOR"]
    assert play.server(b"150 0.000 seconds") == ["< 150 0.000 seconds", "withdraw 1", "> PWD"]
    assert play.server(b"226 Since you see this") == ["< 226 Since you see this"]
    assert play.server(b"257 /") == ["< 257 /"]


def test_after_a_second_150_the_end_of_the_transfer_may_still_come(play: Play) -> None:
    transfer(play)
    assert play.server(b"150-Two", b"150 Here") == ["< 150-Two", "< 150 Here", "withdraw 1"]
    assert play.server(b"226-So", b"226 Done") == ["< 226-So", "< 226 Done"]
    assert play.server(b"226 Done")[-1] == "over"


def test_after_a_second_150_no_third_may_come(play: Play) -> None:
    transfer(play)
    play.server(b"150 Here")
    assert play.server(b"150 Here")[-1] == "over"


def test_after_a_second_150_no_port_may_come(play: Play) -> None:
    transfer(play)
    play.server(b"150 Here")
    assert play.server(EPSV)[-1] == "over"


def test_restart_markers_do_not_end_a_transfer(play: Play) -> None:
    transfer(play)
    assert play.server(b"110 MARK 1 = 2", b"110 MARK 3 = 4") == ["< 110 MARK 1 = 2", "< 110 MARK 3 = 4"]
    assert play.server(b"226 Done") == ["< 226 Done", "withdraw 1"]


def test_what_overtakes_is_not_without_limit(play: Play) -> None:
    transfer(play)
    assert len(play.client(*[b"STAT"] * 100)) == 7


@given(st.binary(max_size=600))
def test_whatever_both_say_no_third_party_is_connected_to(data: bytes) -> None:
    ftp_control(data)


WORDS = [
    b"PASV\r\n", b"EPSV\r\n", b"EPSV ALL\r\n", b"PORT 192,0,2,7,200,10\r\n", b"EPRT |1|10.0.0.5|5000|\r\n",
    b"RETR a\r\n",
    b"STOR b\r\n", b"ABOR\r\n", b"STAT\r\n", b"FEAT\r\n", b"NOOP\r\n", b"229 (|||6446|)\r\n", b"500 ?\r\n",
    b"227 (10,0,0,5,25,46)\r\n", b"150 x\r\n", b"226 y\r\n", b"211-f\r\n", b"211 e\r\n", b"\xff\xfd", b"\n", b"\r",
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(b".oOf"), st.lists(st.sampled_from(WORDS), max_size=4)), max_size=20))
def test_whatever_the_order_of_what_is_said_no_third_party_is_connected_to(
    turns: list[tuple[int, list[bytes]]],
) -> None:
    pieces = [bytes([how]) + b"".join(words) for how, words in turns]
    ftp_control(b"".join(bytes([len(piece)]) + piece for piece in pieces))


def test_where_a_client_is_gone_to_is_what_it_named() -> None:
    machine = Translator(client=CLIENT, local=LOCAL, server=SERVER)
    for data in (b"220 x\r\n", b""):
        machine.receive_server(data)
    machine.receive_client(b"EPRT |1|192.0.2.7|5282|\r\n")
    machine.receive_server(EPSV + b"\r\n")
    machine.receive_client(b"LIST\r\n")
    assert machine.take_actions()[-1] == Join(1, 6446, TransportAddress(CLIENT, 5282))
