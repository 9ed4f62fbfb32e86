"""Who is blamed for what HAProxy says, in words that HAProxy 2.6 and the launcher really use."""

import pytest

from services.nsmanager.launcher import words as launcher_words
from services.proxy import model, plan, render
from services.proxy.plan import blame, wish
from tests.unit.proxy import sample

DESIRED = model.Desired((sample.vservice(generation=4), sample.vservice("other", port=81, generation=5)), sample.TABLES)
CONFIG = wish.wish(DESIRED, plan.Observed(sample.LIMITS, namespaces=frozenset(sample.TABLES.values()))).config.text
OP = plan.StartEngine(CONFIG, generations={"vServices/web": 4, "vServices/other": 5})


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(CONFIG.splitlines(), start=1) if text in line)


BIND = line_of("bind ipv4@203.0.113.10:81")
WEB = line_of("bind ipv4@203.0.113.10:80")
SERVER = line_of("server a1.tenant-a.21")
SPARE = line_of("server _1.tenant-a.21")
IN_USE = "cannot bind socket (Address already in use) for"
BINDING = f"Binding [/run/crossns/engines/haproxy.cfg:{BIND}] for frontend vs.other.fe.fe: {IN_USE} [203.0.113.10:81]"
BINDING_WEB = f"Binding [/run/crossns/engines/haproxy.cfg:{WEB}] for frontend vs.web.fe.fe: {IN_USE} [203.0.113.10:80]"
ENTERING = (
    f"config : [/run/crossns/engines/haproxy.candidate:{SERVER}] : 'server vs.other.po.main/a1.tenant-a.21' : "
    "Cannot open namespace 'tenant-a.21'."
)
ENTERING_SPARE = ENTERING.replace(f":{SERVER}]", f":{SPARE}]").replace("/a1.", "/_1.")
PARSING = f"config : parsing [/run/haproxy.candidate:{BIND}] : 'bind ipv4@203.0.113.10:81' in section 'frontend' : error"
END = "[haproxy.main()] Some protocols failed to start their listeners! Exiting."
DIRECTIVE = f"line {SERVER} of the configuration may not run: only IP addresses are listened on and connected to"
LISTENER, OTHER, MEMBER = sample.listener(), sample.listener("other", port=81), sample.server("other")


def refused(*alerts: str) -> str:
    """What the launcher makes of what HAProxy says."""
    said = "".join(f"[ALERT]    (3730) : {alert}\n" for alert in alerts)
    return launcher_words.refusal(
        "haproxy refused the configuration", f"[NOTICE]   (3730) : haproxy version is 2.6.12\n{said}"
    ).message


def test_every_line_is_led_back_to_its_part() -> None:
    everybody = [LISTENER, sample.server(), OTHER, sample.server("other")]
    assert sorted(blame.parts(CONFIG).values()) == sorted(everybody)
    lines = CONFIG.splitlines()
    assert all(part.namespace in lines[number - 1] for number, part in blame.parts(CONFIG).items())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (refused(BINDING, END), {OTHER}),
        (refused(BINDING, BINDING_WEB, END), {OTHER, LISTENER}),
        (refused(ENTERING, ENTERING_SPARE), {MEMBER}),
        (refused(PARSING, "config : Fatal errors found in configuration."), {OTHER}),
        (DIRECTIVE, {MEMBER}),
        (refused(END), set()),
        (refused(ENTERING_SPARE), set()),
        ("HAProxy could not open a listener", set()),
        (refused("config : parsing [/x:1] : unknown keyword"), set()),
        (refused("config : parsing [/x:99999999] : beyond the end"), set()),
        # An address is no line.
        (f"{IN_USE} [203.0.113.10:{BIND}]; {IN_USE} [fd00::9:{BIND}]", set()),
        ("", set()),
    ],
)
def test_the_lines_that_the_words_name_are_to_blame(words: str, expected: set[render.Part]) -> None:
    assert set(plan.blamed(OP, words)) == expected


def test_each_is_told_what_was_said_of_itself_and_stays_out_while_it_is_of_this_generation() -> None:
    found = plan.blamed(OP, refused(BINDING, BINDING_WEB, END))
    assert found == {
        OTHER: plan.Refusal(f"haproxy refused the configuration: {BINDING}", 5),
        LISTENER: plan.Refusal(BINDING_WEB, 4),
    }


def test_of_a_range_the_first_port_that_is_named_is_enough() -> None:
    again = BINDING.replace("[203.0.113.10:81]", "[203.0.113.10:82]")
    assert plan.blamed(OP, refused(BINDING, again))[OTHER].words.endswith(f"{IN_USE} [203.0.113.10:81]")


def test_what_is_said_at_length_is_shown_on_one_short_line() -> None:
    words = plan.blamed(OP, f"{BINDING} {'x' * 5000}\n")[OTHER].words
    assert len(words) <= 256
    assert words.startswith("Binding ")


@pytest.mark.parametrize(
    ("line", "socket"),
    [
        ("    bind ipv4@203.0.113.10:80-82 namespace dmz.11 name dmz.11 transparent accept-proxy", "203.0.113.10:80-82"),
        ("    bind ipv6@[fd00::1]:80-82 namespace dmz.11 name dmz.11 transparent v6only", "[fd00::1]:80-82"),
        ("    server m.dmz.11 ipv4@10.0.0.5 id 1 namespace dmz.11 weight 1", "10.0.0.5:0"),
        ("    server m.dmz.11 ipv6@[fd00::5] id 1 namespace dmz.11 send-proxy weight 1 disabled", "[fd00::5]:0"),
        ("    server m.dmz.11 ipv6@[fd00::5]:80 id 1 namespace dmz.11 weight 0 maxconn 5", "[fd00::5]:80"),
        # A member that came without a reload.
        ("    server _2.dmz.11 ipv4@10.0.0.5:80 id 1 namespace dmz.11 weight 1", "10.0.0.5:80"),
        ("    server _1.dmz.11 ipv6@[fd00::5]:80 id 1 namespace dmz.11 weight 1 disabled", "[fd00::5]:80"),
    ],
)
def test_a_part_is_found_by_its_line_whatever_else_stands_there(line: str, socket: str) -> None:
    config = f"backend vs.a.po.b from http\n    balance random\n{line}\n"
    assert blame.parts(config) == {3: render.Part("vs.a.po.b", "dmz.11", socket)}


@pytest.mark.parametrize("name", ["_1", "m"])
def test_a_line_that_is_nobodys_is_not_to_blame(name: str) -> None:
    """One that was made for whoever comes, and one whose member has gone."""
    line = f"    server {name}.dmz.11 ipv4@255.255.255.255:1 id 1 namespace dmz.11 weight 1 disabled"
    assert blame.parts(f"backend vs.a.po.b from tcp\n{line}\n") == {}
