"""What the shell agent must pass of Jupyter's own suite."""

import unittest

import jupyter_kernel_test


class ShellSuite(jupyter_kernel_test.KernelTests):
    """What a shell as a kernel must pass."""

    language_name = "bash"
    file_extension = ".sh"
    code_hello_world = "echo 'hello, world'"
    code_stderr = "echo test >&2"
    completion_samples = [  # noqa: RUF012
        {"text": "unse", "matches": {"unset"}},
        {"text": "cat /proc/self/statu", "matches": {"/proc/self/status"}},
        {"text": "echo $OPTIN", "matches": {"OPTIND"}},
    ]
    complete_code_samples = ["echo 1", "if true; then echo 1; fi", "cat <<END\nx\nEND\n"]  # noqa: RUF012
    incomplete_code_samples = [  # noqa: RUF012
        "if true; then",
        "echo 'open",
        "cat <<END\nx",
        "for i in 1 2; do\necho $i",
        "echo a \\",
        "f() {",
    ]
    invalid_code_samples = ["fi", "echo )"]  # noqa: RUF012
    code_generate_error = "false"
    code_execute_result = [{"code": "echo 1+2+3"}]  # noqa: RUF012
    code_history_pattern = "echo 1?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "cd"

    @classmethod
    def begin(cls):
        """Before an image's kernel runs the language is python."""
        cls.kc.execute_interactive("true", timeout=30, output_hook=lambda _: None)

    @unittest.skip("a shell prints, it has no results: the samples are for the history")
    def test_execute_result(self): ...


def only_prints(*names):
    """Why the others of the suite do not apply."""
    return unittest.skip(f"a shell has no {', '.join(names)}")


for name, what in (
    ("test_display_data", "displays"),
    ("test_clear_output", "displays"),
    ("test_pager", "pager"),
):
    setattr(ShellSuite, name, only_prints(what)(lambda self: None))
