"The campaigns in small. `make test-full` with PROC_NB_FAULTS, PROC_NB_FUZZ (seconds), PROC_NB_MUTANTS, PROC_NB_LOAD (share of the whole) and PROC_NB_SEED set makes them as large as wanted."
import json, os, subprocess, sys
from pathlib import Path
import pytest

HERE = Path(__file__).parent/'campaigns'
def campaign(script, *args): return subprocess.run([sys.executable, HERE/script, *map(str, args)], capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS='1'))

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')

def test_a_few_faults(tmp_path):
    done = campaign('faults.py', '--kind', 'influence', '--count', 7, '--seed', 0, '--out', tmp_path/'f.jsonl')
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path/'f.jsonl').read_text(encoding='utf-8').splitlines()) == 7

@pytest.mark.full
@pytest.mark.parametrize('kind', 'practise demo study ray language language2 influence lab kernel'.split())
def test_faults(kind):
    if kind == 'ray': pytest.importorskip('ray')
    done = campaign('faults.py', '--kind', kind, '--count', os.environ.get('PROC_NB_FAULTS', 7), '--seed', os.environ.get('PROC_NB_SEED', 1))
    assert done.returncode == 0, done.stdout + done.stderr

@pytest.mark.full
@pytest.mark.parametrize('what', 'updates restarts study together lab'.split())
def test_load(what):
    done = campaign('load.py', '--what', what, '--scale', os.environ.get('PROC_NB_LOAD', .02 if what == 'lab' else .05))
    assert done.returncode == 0, done.stdout + done.stderr

@pytest.mark.full
def test_mutants():
    done = campaign('mutate.py', '--count', os.environ.get('PROC_NB_MUTANTS', 12), '--seed', os.environ.get('PROC_NB_SEED', 1), '--module', 'transfer')
    assert done.returncode == 0, done.stdout + done.stderr

def test_the_report_says_what_the_campaigns_found():
    report = json.loads((HERE/'report.json').read_text(encoding='utf-8'))
    for f in report['faults']: assert f['violated'] == 0 and f['count'] == f['equal'] + f['refused']
    assert sum(f['count'] for f in report['faults']) >= 200
    sys.path.insert(0, str(HERE))
    import faults, fuzz
    assert {(f['job'], f['fault']) for f in report['faults']} == {(j.name, f) for j in faults.JOBS.values() for f in j.faults}
    assert {f['target']: f['guided'] >= 100 and f['answers'].get('fine', 0) > 0 for f in report['fuzz']} == dict.fromkeys(fuzz.TARGETS, True)
