import subprocess
import sys

import pytest

from haskd_jax.experiments import report_cli, view_cli


@pytest.mark.parametrize(
    "name", ["pretrain_cli", "report_cli", "view_cli", "scannet", "s3dis", "synthrooms"]
)
def test_help_loads_nothing_heavy(name):
    code = (
        f"import sys\nfrom haskd_jax.experiments.{name} import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'viser', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage: " in result.stdout


def test_the_report_needs_no_jax():
    modules = "sys, haskd_jax.report.html, haskd_jax.report.viewer"
    code = f"import {modules}\nassert 'jax' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("option", ["--out", "-o"])
def test_report(finished, tmp_path, capsys, option):
    out = tmp_path / "page.html"
    assert report_cli.main([str(finished), option, str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_report_goes_to_a_file(finished, tmp_path, capsys):
    assert report_cli.main([str(finished), "--out", str(tmp_path)]) == 2
    assert f"haskd report: out: {tmp_path} is a folder, expected a file" in capsys.readouterr().err
    assert report_cli.main([str(finished), "--out", str(tmp_path / "new" / "page.html")]) == 0


@pytest.mark.parametrize("command", [report_cli, view_cli])
def test_errors_say_what_is_wrong(command, tmp_path, capsys):
    assert command.main([str(tmp_path / "gone")]) == 2
    error = capsys.readouterr().err
    assert "gone" in error and "missing" in error


def test_ports_that_are_none(finished, capsys):
    assert view_cli.main([str(finished), "--port", "99999"]) == 2
    assert "port: 99999, must be 1 to 65535" in capsys.readouterr().err
