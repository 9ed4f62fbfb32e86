"""What HAProxy 2.6 answers to `show stat`, made of the few numbers that a test is about."""

from pathlib import Path

_FILE = Path(__file__).parents[2] / "testdata" / "proxy" / "show-stat.txt"
HEADER = next(line for line in _FILE.read_text(encoding="utf-8").splitlines() if line.startswith("# pxname,"))
_COLUMNS = HEADER.removeprefix("# ").split(",")
# HAProxy leaves cells empty that a kind of row does not have.
_ZEROS = {
    "FRONTEND": ("scur", "stot", "bin", "bout", "dcon", "dses", "ereq", "req_tot"),
    "BACKEND": ("qcur", "scur", "stot", "bin", "bout", "econ", "wretr", "wredis", "req_tot"),
    "server": ("qcur", "scur", "stot", "bin", "bout", "econ", "wretr", "wredis", "req_tot"),
}
_TYPES = {"FRONTEND": 0, "BACKEND": 1, "server": 2}


def row(section: str, name: str, addr: str = "", /, **cells: int | str) -> str:
    """`name` is FRONTEND, BACKEND or a server's."""
    kind = name if name in _TYPES else "server"
    known = {"pxname": section, "svname": name, "addr": addr, "type": _TYPES[kind]} | dict.fromkeys(_ZEROS[kind], 0) | cells
    return ",".join(str(known.get(column, "")) for column in _COLUMNS)


def table(*rows: str) -> str:
    return "\n".join([HEADER, *rows, "", ""])
