"""The side of the callers reaches files by an open directory only, so that no path can be swapped under it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from orchestrator import spool

# What callers can lay something in the way of. watch.py, observe.py and filesystem.py only look; caller.py is a caller.
MODULES = ["claim.py", "directory.py", "intake.py", "light.py", "rejected.py", "release.py"]
BY_NAME = {
    "open", "stat", "lstat", "unlink", "remove", "rename", "replace", "link", "symlink", "mkdir", "rmdir", "utime",
    "chmod", "chown", "lchown", "mknod", "mkfifo", "access", "truncate", "readlink",
}  # fmt: skip
FORBIDDEN = {"chmod", "chown", "lchown", "access", "truncate"}  # they act on whatever bears the name by then


def calls(module: str) -> list[tuple[int, str, set[str], str]]:
    """Give each call of os.NAME that takes a path: its line, NAME, its keywords, and its text."""
    folder = Path(spool.__file__ or "").parent
    tree = ast.parse((folder / module).read_text())
    return [
        (node.lineno, node.func.attr, {word.arg or "" for word in node.keywords}, ast.unparse(node))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "os"
        and node.func.attr in BY_NAME
    ]


@pytest.mark.parametrize("module", MODULES)
def test_every_call_names_the_open_directory_and_none_changes_mode_or_owner_by_name(module: str) -> None:
    allowed = "os.open(path, _OPEN_DIRECTORY & ~os.O_NOFOLLOW)"  # the spool itself, as the settings have it
    for line, name, keywords, text in calls(module):
        if text == allowed:
            continue
        assert name not in FORBIDDEN, f"{module}:{line}: {text}"
        needed = {"src_dir_fd", "dst_dir_fd"} if name in ("rename", "link") else {"dir_fd"}
        assert needed <= keywords, f"{module}:{line}: {text}"
        if name in ("stat", "utime", "link"):
            assert "follow_symlinks=False" in text, f"{module}:{line}: {text}"


def test_the_calls_are_found() -> None:
    assert sum(len(calls(module)) for module in MODULES) > 30
