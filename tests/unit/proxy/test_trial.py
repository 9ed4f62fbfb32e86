"""Who is blamed for what HAProxy says, in words that HAProxy 2.6 really uses."""

import pytest

from services.proxy import model, plan, render
from services.proxy.plan import trial, wish
from tests.unit.proxy import sample

_SERVICES = model.Desired((sample.vservice(), sample.vservice("other", port=81)), sample.TABLES)
CONFIG = wish.wish(_SERVICES, plan.Observed(sample.LIMITS, namespaces=frozenset(sample.TABLES.values()))).config.text


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(CONFIG.splitlines(), start=1) if text in line)


BIND = line_of("bind ipv4@203.0.113.10:81")
SERVER = line_of("server a1.tenant-a.21")
BINDING = (
    f"[ALERT]    (100) : Binding [/run/crossns/engines/haproxy.cfg:{BIND}] for frontend vs.other.fe.fe: "
    "cannot bind socket (Address already in use) for [203.0.113.10:81]"
)
PARSING = (
    "haproxy refused the configuration: [ALERT]    (759) : config : Cannot open namespace 'dmz.11'. [ALERT]    (759) : config : "
    f"parsing [/run/crossns/engines/haproxy.candidate:{BIND}] : 'bind ipv4@203.0.113.10:81' in section 'frontend' : error"
)
DIRECTIVE = f"line {SERVER} of the configuration may not run: only IP addresses are listened on and connected to"


def test_every_line_is_led_back_to_its_part() -> None:
    both = {sample.listener(), sample.server(), sample.listener("other", port=81), sample.server("other")}
    assert sorted(trial.parts(CONFIG).values()) == sorted(both)
    lines = CONFIG.splitlines()
    assert all(part.namespace in lines[number - 1] for number, part in trial.parts(CONFIG).items())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (BINDING, {sample.listener("other", port=81)}),
        (PARSING, {sample.listener("other", port=81)}),
        (DIRECTIVE, {sample.server("other")}),
        (f"{BINDING}\n{DIRECTIVE}", {sample.listener("other", port=81), sample.server("other")}),
        ("HAProxy could not open a listener", set()),
        ("parsing [/x:1] : unknown keyword", set()),
        ("parsing [/x:99999999] : beyond the end", set()),
        ("cannot bind socket for [203.0.113.10:81]", set()),
        ("", set()),
    ],
)
def test_the_lines_that_the_words_name_are_to_blame(words: str, expected: set[render.Part]) -> None:
    assert trial.blamed(words, CONFIG) == expected


def test_an_ipv6_listener_is_found_too() -> None:
    config = "frontend vs.a.fe.b\n    bind ipv6@[fd00::1]:80 namespace dmz.11 name dmz.11 transparent v6only\n"
    assert trial.blamed("[x:2]", config) == {render.Part("vs.a.fe.b", "dmz.11", "[fd00::1]:80")}


@pytest.mark.parametrize(
    ("line", "socket"),
    [
        ("    bind ipv4@203.0.113.10:80-82 namespace dmz.11 name dmz.11 transparent accept-proxy", "203.0.113.10:80-82"),
        ("    bind ipv6@[fd00::1]:80-82 namespace dmz.11 name dmz.11 transparent v6only", "[fd00::1]:80-82"),
        ("    server m.dmz.11 ipv4@10.0.0.5 id 1 namespace dmz.11 weight 1", "10.0.0.5:0"),
        ("    server m.dmz.11 ipv6@[fd00::5] id 1 namespace dmz.11 send-proxy weight 1 disabled", "[fd00::5]:0"),
        ("    server m.dmz.11 ipv6@[fd00::5]:80 id 1 namespace dmz.11 weight 0 maxconn 5", "[fd00::5]:80"),
    ],
)
def test_a_part_is_found_by_its_line_whatever_else_stands_there(line: str, socket: str) -> None:
    config = f"backend vs.a.po.b from http\n    balance random\n{line}\n"
    assert trial.parts(config) == {3: render.Part("vs.a.po.b", "dmz.11", socket)}


def test_a_line_that_is_nobodys_is_not_to_blame() -> None:
    config = "backend vs.a.po.b from tcp\n    server _1.dmz.11 ipv4@255.255.255.255:1 id 1 namespace dmz.11 weight 1 disabled\n"
    assert trial.parts(config) == {}


def test_what_is_refused_is_remembered_with_the_words() -> None:
    learned = plan.failed(plan.Trial(), CONFIG, (), BINDING)
    assert list(learned.refused) == [sample.listener("other", port=81)]
    assert "Address already in use" in learned.refused[sample.listener("other", port=81)]


def test_without_words_half_of_what_is_new_waits() -> None:
    new = [sample.listener(f"v{index}") for index in range(8)]
    learned = plan.failed(plan.Trial(), CONFIG, new, "no")
    assert learned == plan.Trial(postponed=(tuple(new[4:]),))
    again = plan.failed(learned, CONFIG, new[:4], "no")
    assert again == plan.Trial(postponed=(tuple(new[4:]), tuple(new[2:4])))
    assert again.left_out == set(new[2:])


def test_the_one_that_is_left_is_it_and_nobody_waits_any_more() -> None:
    waiting = ((sample.listener("other"),),)
    learned = plan.failed(plan.Trial(postponed=waiting), CONFIG, [sample.listener()], "no")
    assert learned == plan.Trial({sample.listener(): "no"})
    assert learned.left_out == {sample.listener()}


def test_of_those_that_waited_last_half_has_its_turn_once_the_rest_runs() -> None:
    refused = {sample.listener(): "no"}
    first, last = (sample.listener("a"),), tuple(sample.listener(f"v{index}") for index in range(4))
    trial = plan.Trial(refused, (first, last))
    turns = []
    while trial.postponed:
        trial = plan.succeeded(trial)
        turns.append(trial.postponed)
    assert turns == [(first, last[2:]), (first, last[3:]), (first,), ()]
    assert trial == plan.Trial(refused)


def test_nothing_is_learned_where_nothing_was_new_and_nobody_named() -> None:
    assert plan.failed(plan.Trial(), CONFIG, (), "no") == plan.Trial()
