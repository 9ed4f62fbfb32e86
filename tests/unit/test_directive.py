"""Which HAProxy configurations the launcher lets run."""

import hashlib
from pathlib import Path

import pytest

from crossns import errors
from services.nsmanager.launcher import directive

ENGINE_DIR = Path("/run/crossns/engines/haproxy")
GOOD = """\
# rendered by the proxy service
global
    maxconn 2000
    tune.bufsize 65536
    stats socket /run/crossns/engines/haproxy/stats.sock mode 660 level admin expose-fd listeners
    stats timeout 10s
    log /dev/log local0 info
    log /run/crossns/engines/haproxy/log.sock len 4096 format raw local1
    description 4f1c
    grace 100ms
defaults
    mode tcp
    timeout connect 5s
    option tcplog
    no option dontlognull
    log global
frontend web/dmz
    bind 203.0.113.10:80 namespace dmz.4711
    bind ipv6@[2001:db8::1]:80 namespace dmz.4711
    tcp-request connection reject if { src 192.0.2.1 }
    use_backend web/main
backend web/main
    balance roundrobin
    server a1 10.0.0.5:8080 namespace tenant-a.4712 weight 10
    server a2 [2001:db8::5]:8080 namespace tenant-a.4712
    server-template spare 2 10.0.0.5:8080 namespace tenant-a.4712 disabled
defaults tcp
    mode tcp
    log /run/crossns/engines/haproxy/log.sock local0
    log-format %ci,%cp,%fi,%fp,%ft,%b,%s,%bi,%bp,%Tw/%Tc/%Tt,%B,%ts,%[src],%[fc_src,ipmask(24)]
    timeout client-fin 30s
    option socket-stats
    option redispatch 1
defaults http
    mode http
    option forwardfor
    timeout http-keep-alive 1m
    retry-on conn-failure empty-response 503
frontend vs.web.fe.dmz from tcp
    bind ipv4@203.0.113.10:81 namespace dmz.4711 name dmz.4711 transparent accept-proxy
    bind ipv6@[2001:db8::1]:81 namespace dmz.4711 name dmz.4711 v6only
    maxconn 100
    rate-limit sessions 10
    stick-table type ipv6 size 100k expire 30s store conn_cur
    tcp-request session track-sc0 src
    tcp-request session reject if { sc0_conn_cur gt 5 }
    default_backend vs.web.po.main
backend vs.web.po.main from http
    balance source
    hash-type consistent
    server a1.tenant-a.4712 ipv4@10.0.0.5:8080 namespace tenant-a.4712 id 1 weight 10 maxconn 5 send-proxy
    server _1.tenant-a.4712 ipv6@[::1]:1 namespace tenant-a.4712 id 2 disabled send-proxy-v2
"""


def test_what_the_proxy_service_renders_may_run() -> None:
    directive.check(GOOD, ENGINE_DIR)


def test_empty_file_may_run() -> None:
    directive.check("", ENGINE_DIR)


BAD = {
    # section: programs, code, other sections
    "": ["program x", "resolvers r", "userlist u", "mailers m", "cache c", "http-errors e", "ring r", "bind 10.0.0.1:80", ".if"],
    "global": [
        *("external-check", "insecure-fork-wanted", "insecure-setuid-wanted", "lua-load /x.lua", "lua-load-per-thread /x.lua"),
        *("lua-prepend-path /x", "setenv A b", "presetenv A b", "resetenv", "unsetenv A", "user root", "group root", "uid 0"),
        *("gid 0", "chroot /", "daemon", "pidfile /x", "ca-base /etc", "crt-base /etc", "server-state-file /x", "set-dumpable"),
        *("module-path /x", "module-load x.so", "ssl-engine x", "master-worker", "mworker-max-reloads 1", "tune.lua.maxmem 1"),
        *("stats socket /tmp/x.sock", "stats socket /run/crossns/engines/haproxy/../../x", "stats socket 10.0.0.1:99", "stats"),
        *("stats socket abns@x", "stats socket fd@3", "log 192.0.2.1 local0", "log fd@2 local0", "log udp@192.0.2.1 x", "log"),
        *("log /tmp/log.sock local0", "log /run/crossns/engines/haproxy/../log.sock local0", "log ring@r local0"),
        *("log unix@/run/crossns/engines/haproxy/log.sock local0", "log /run/crossns/engines/haproxy/.. local0"),
    ],
    "frontend f": [
        *("bind /run/x.sock", "bind unix@/run/x.sock", "bind abns@x", "bind fd@5", "bind sockpair@5", "bind 10.0.0.1:80,/run/x"),
        *("http-request lua.x", "http-request return status 200 file /etc/passwd", "http-request use-service lua.x"),
        *("http-request return lf-file /etc/passwd", "acl x src -f /etc/passwd", "errorfile 400 /etc/passwd", "filter spoe"),
        *("http-request set-var(txn.x) lua.f", "email-alert mailers x", "tcp-request content lua.x", "errorfiles x"),
        *("log-format %[lua.x]", "log-format %{+Q}[lua.x]", "log-format %[src,map(/etc/passwd)]"),
        *("http-request set-header x %[src,map_str_int(/etc/passwd)]", "log /dev/kmsg local0", "bind :443 ssl crt /etc/x.pem"),
    ],
    "backend b": [
        *("server a /run/x.sock", "server a unix@/run/x.sock", "option external-check", "external-check command /bin/sh"),
        *("server-template a 3 unix@/x", "load-server-state-from-file global", "dispatch 10.0.0.1:1", "external-check path /"),
        *("use-fcgi-app x", "log-forward x", "server a 10.0.0.1:1 check addr unix@/run/x.sock", "source abns@x"),
        *("server a 10.0.0.1:1 check addr /run/x.sock", "tcp-check connect addr /run/x.sock", "default-server addr /run/x"),
    ],
}


@pytest.mark.parametrize(("section", "line"), [(section, line) for section, lines in BAD.items() for line in lines])
def test_line_that_could_do_more_than_proxying_is_refused_by_its_number(section: str, line: str) -> None:
    with pytest.raises(errors.PermanentError) as raised:
        directive.check(f"# first\n{section}\n    {line}\n", ENGINE_DIR)
    assert raised.value.reason == "ENGINE_REFUSED"
    assert "line 3" in raised.value.message


@pytest.mark.parametrize("text", ['"', "'", "\\", "$", "\0", "\r", "\x0b", "\x85", "\u2028", "é", "\x7f"])
def test_word_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(errors.PermanentError):
        directive.check(f"global\n    description a{text}b\n", ENGINE_DIR)


def test_comment_hides_nothing() -> None:
    with pytest.raises(errors.PermanentError):
        directive.check("global # comment\n    daemon # comment\n", ENGINE_DIR)


def test_file_without_measure_is_refused() -> None:
    with pytest.raises(errors.PermanentError):
        directive.check("#" * (directive.CONFIG_MAX + 1), ENGINE_DIR)


def test_what_has_passed_makes_room_for_nothing_new() -> None:
    passed = directive.check(GOOD, ENGINE_DIR)
    assert directive.check(GOOD, ENGINE_DIR, passed) == passed
    lines = GOOD.splitlines()
    for place in (2, 12, len(lines)):
        changed = "\n".join([*lines[:place], "    external-check command /bin/sh", *lines[place:]])
        with pytest.raises(errors.PermanentError, match=rf"line {place + 1} "):
            directive.check(changed, ENGINE_DIR, passed)


def test_a_section_that_has_passed_is_not_looked_at_again() -> None:
    """The same lines are another section behind another first line."""
    section = "    server a1 10.0.0.5:8080\n"
    passed = directive.check(f"backend b\n{section}", ENGINE_DIR)
    with pytest.raises(errors.PermanentError, match="line 2 "):
        directive.check(f"global\n{section}", ENGINE_DIR, passed)
    assert directive.check("backend b\n    no such thing\n", ENGINE_DIR, _digests("backend b\n    no such thing\n"))


def _digests(text: str) -> frozenset[bytes]:
    return frozenset({b"", hashlib.blake2b(text.encode(), digest_size=16).digest(), hashlib.blake2b(digest_size=16).digest()})
