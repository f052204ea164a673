"""Can `constraints-dev.txt` be installed on every Python that is promised? `python tests/pins.py [VERSION ...]` asks the index for each pin, one by one, and names those without a wheel.

Nothing is installed. What has only a source distribution, or no wheel for an old or a new Python, ends in exit code 1."""
import subprocess, sys, tempfile
from pathlib import Path
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYTHONS = '3.10', '3.11', '3.12', '3.13', '3.14'

def pins(python):
    "The lines that hold on this Python, as Requirements"
    lines = (ROOT/'constraints-dev.txt').read_text(encoding='utf-8').splitlines()
    wanted = [Requirement(l) for l in lines if l.strip() and not l.startswith('#')]
    return [r for r in wanted if not r.marker or r.marker.evaluate(dict(python_version=python, python_full_version=f'{python}.0'))]

def installable(python, *wanted):
    "What pip says against it, '' if nothing; metadata only where the index gives it apart from the wheel"
    with tempfile.TemporaryDirectory() as tmp:
        done = subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--dry-run', '--no-deps', '--ignore-installed', '--target', tmp, '--only-binary', ':all:',
            '--python-version', python, *(f'{r.name}{r.specifier}' for r in wanted)], capture_output=True, text=True, cwd=tmp)
    return '' if done.returncode == 0 else ([l for l in done.stderr.splitlines() if l.startswith('ERROR')] or ['pip failed'])[-1]

def missing(python):
    "Pins without a wheel for this Python"
    wanted = pins(python)
    if not installable(python, *wanted): return []
    return [str(r) for r in wanted if installable(python, r)]

if __name__ == '__main__':
    found = {python: missing(python) for python in sys.argv[1:] or PYTHONS}
    for python, names in found.items(): print(f'{python}: {len(pins(python))} pins, ' + (f'no wheel for {", ".join(names)}' if names else 'all have wheels'))
    sys.exit(any(found.values()))
