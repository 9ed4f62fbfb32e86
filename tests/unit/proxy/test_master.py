"""HAProxy 2.6's answers, as they came out of its master socket."""

import pytest

from crossns import errors
from services.proxy import render
from services.proxy.driver import master

RUNNING = """\
#<PID>          <type>          <reloads>       <uptime>        <version>      
100             master          2 [failed: 0]   0d00h00m07s     2.6.12-1+deb12u4
# workers
630             worker          0               0d00h00m01s     2.6.12-1+deb12u4
# old workers
104             worker          2               0d00h00m07s     2.6.12-1+deb12u4
# programs

"""  # noqa: W291 - that is how it comes
FAILED = """\
#<PID>          <type>          <reloads>       <uptime>        <version>      
100             master          3 [failed: 1]   0d00h00m09s     2.6.12-1+deb12u4
# workers
630             worker          1               0d00h00m03s     2.6.12-1+deb12u4
# programs

"""  # noqa: W291 - that is how it comes
FIELDS = (
    "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,chkfail,"
    "chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,"
    "check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,"
    "comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,agent_duration,"
    "check_desc,agent_desc,check_rise,check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,"
)
ROWS = [
    "vs.web.fe.dmz,a.123,,,0,0,0,0,0,0,0,0,0,,,,,OPEN,,,,,,,,,1,1,1,,,,3,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,10.9.9.9:80,,tcp,,",
    "vs.web.fe.six,a.123,,,0,0,0,0,0,0,0,0,0,,,,,OPEN,,,,,,,,,1,2,1,,,,3,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,[fd00::9]:80,,tcp,,",
    "vs.web.fe.off,a.123,,,0,0,0,0,0,0,0,0,0,,,,,STOP,,,,,,,,,1,2,1,,,,3,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,10.9.9.9:81,,tcp,,",
    "vs.web.po.main,a1.b.456,0,0,0,0,,0,0,0,,0,,0,0,0,0,no check,1,1,0,,,1,,,1,3,1,,0,,2,0,,0,,,,,,,,,,,,,,0,0,,,,,-1,,,0,0,0,0,"
    ",,,,,,,,,,,10.0.0.5:8080,,tcp,,",
]
STATISTICS = "\n".join([FIELDS, *ROWS, "", ""])


def test_a_running_master_tells_its_current_worker() -> None:
    assert master.parse_processes(RUNNING) == master.Processes(master=100, reloads=2, failed=0, worker=630)


def test_a_failed_reload_is_seen_and_the_worker_from_before_is_current() -> None:
    assert master.parse_processes(FAILED) == master.Processes(master=100, reloads=3, failed=1, worker=630)


def test_a_master_with_old_workers_alone_has_none() -> None:
    text = RUNNING.replace("# workers\n", "# workers\n# old workers\n")
    assert master.parse_processes(text).worker == 0


@pytest.mark.parametrize("text", ["", "\n", "Unknown command\n"])
def test_an_answer_without_a_master_is_none(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        master.parse_processes(text)


def test_statistics_show_open_listeners_and_all_servers() -> None:
    assert master.parse_parts(STATISTICS) == {
        render.Part("vs.web.fe.dmz", "a.123", "10.9.9.9:80"),
        render.Part("vs.web.fe.six", "a.123", "[fd00::9]:80"),
        render.Part("vs.web.po.main", "a1.b.456", "10.0.0.5:8080"),
    }


@pytest.mark.parametrize(
    "text", ["", "\n", STATISTICS[:-1], STATISTICS[:700], "Can't find the target PID matching the prefix '@1'\n\n"]
)
def test_half_an_answer_is_none(text: str) -> None:
    with pytest.raises(errors.EngineUnavailable):
        master.parse_parts(text)


def test_a_worker_that_serves_nothing_says_so() -> None:
    assert master.parse_parts(f"{FIELDS}\n\n") == frozenset()
