"The commands as a person calls them: what they print, what they keep when stopped, how they refuse."
import json, os, re, signal, subprocess, sys, time
from pathlib import Path
import pytest

BIN = Path(sys.executable).parent

def call(*args, cwd): return subprocess.run([BIN/args[0], *args[1:]], cwd=cwd, capture_output=True, text=True, timeout=300)

def test_demo_writes_a_table_and_a_chart(tmp_path):
    done = call('proc-nb-demo', '--n-pairs', '30', '--steps', '4', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for start in ('random weights', 'attention', 'attention + positions', 'everything'): assert f'\n{start} ' in done.stdout
    assert 'second-hand' in done.stdout and 'author-stated' in done.stdout and 'Try next' in done.stdout
    out = tmp_path/'_runs/demo'
    assert sorted(p.name for p in out.iterdir()) == ['chart.html', 'chart.png', 'results.json']
    kept = json.loads((out/'results.json').read_text(encoding='utf-8'))
    assert len(kept['rows']) == 4 and kept['torch'] and kept['hardware']
    assert 'src="http' not in (out/'chart.html').read_text(encoding='utf-8')

def test_a_finished_demo_is_not_written_over(tmp_path):
    for _ in range(2): done = call('proc-nb-demo', '--n-pairs', '3', '--steps', '2', '--parts', 'all', cwd=tmp_path)
    assert {p.name for p in (tmp_path/'_runs').iterdir()} == {'demo', 'demo-2'} and 'demo-2/chart.png' in done.stdout
    assert '\neverything ' in done.stdout and 'second-hand' not in done.stdout # these are not the papers' 30 pairs

def test_two_demos_at_once_do_not_meet(tmp_path):
    both = [subprocess.Popen([BIN/'proc-nb-demo', '--n-pairs', '3', '--steps', '2', '--parts', 'all'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    said = [p.communicate(timeout=120)[0] for p in both]
    assert {p.name for p in (tmp_path/'_runs').iterdir()} == {'demo', 'demo-2'} and sum('demo-2/chart.png' in s for s in said) == 1

def test_ctrl_c_keeps_what_was_done(tmp_path):
    run = subprocess.Popen([BIN/'proc-nb-demo', '--n-pairs', '3', '--steps', '100000'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    kept = tmp_path/'_runs/demo/results.json'
    for _ in range(600):
        if kept.exists(): break
        time.sleep(.2)
    os.kill(run.pid, signal.SIGINT)
    try: said, _ = run.communicate(timeout=120)
    finally: run.kill()
    assert 'what was done is kept' in said and run.returncode == 0
    assert len(json.loads(kept.read_text(encoding='utf-8'))['rows']) >= 1 and (tmp_path/'_runs/demo/chart.png').exists()

@pytest.mark.parametrize('args,words', [
    (('proc-nb-demo', '--rule', 'identiti'), "Did you mean 'identity'?"), (('proc-nb-demo', '--parts', 'atn'), "Did you mean 'attn'?"),
    (('proc-nb-demo', '--n-pairs', '99'), 'from 1 to 64'), (('proc-nb-demo', '--device', 'gpu'), 'There is no device'),
    (('proc-nb-demo', '--steps', '0'), 'steps must be'), (('proc-nb-demo', '--out', '/proc/x'), 'Nothing can be written to the folder /proc/x'), (('proc-nb-practise', 'dick'), "Did you mean 'dyck'?"),
    (('proc-nb-study', 'tuor'), "Did you mean 'tour'?"), (('proc-nb-bench', '--device', 'gpu'), 'There is no device'), (('proc-nb-influence',), '--model is missing'),
    (('proc-nb-pretrain', '--rule', 'sett', '--plan'), "Did you mean 'set'?"), (('proc-nb-language', 'aditive'), "Did you mean 'additive'?")])
def test_mistakes_are_answered_in_words(args, words, tmp_path):
    done = call(*args, cwd=tmp_path)
    assert done.returncode != 0 and words in done.stderr and 'Traceback' not in done.stderr and not (tmp_path/'_runs').exists()
    assert done.stderr.strip().splitlines()[-1].startswith(f'{args[0]}: ')

def test_practise_can_be_stopped_and_resumed(tmp_path):
    first = call('proc-nb-practise', 'identity', '--steps', '6', cwd=tmp_path)
    assert first.returncode == 0 and 'Written' in first.stdout, first.stderr
    anew = call('proc-nb-practise', 'identity', '--steps', '6', cwd=tmp_path)
    assert anew.returncode == 1 and 'holds a practised network already' in anew.stderr
    again = call('proc-nb-practise', 'identity', '--steps', '6', '--resume', cwd=tmp_path)
    assert again.returncode == 0 and 'finished already' in again.stdout, again.stderr

def test_two_practices_do_not_meet(tmp_path, monkeypatch):
    from proc_nb.commands import practise as practise_cli
    from proc_nb.files import load_tensors
    import proc_nb.cli as module
    monkeypatch.chdir(tmp_path)
    real = module.practise
    def stops(*args):
        model, recs = real(*args)
        def some():
            yield next(recs)
            recs.close()
            raise KeyboardInterrupt
        return model, some()
    monkeypatch.setattr(module, 'practise', stops)
    with pytest.raises(SystemExit, match='goes on from the checkpoint in a.run'): practise_cli('identity', steps=20, out='a')
    with pytest.raises(SystemExit): practise_cli('identity', seed=1, steps=20, out='b')
    assert [load_tensors(f'{n}.run/checkpoint.safetensors')[1]['run']['seed'] for n in 'ab'] == [0, 1]
    with pytest.raises(ValueError, match='a.run holds a practice that was stopped. Add --resume'): practise_cli('identity', steps=20, out='a')
    with pytest.raises(ValueError, match='seed was 0 and is now 1'): practise_cli('identity', seed=1, steps=20, out='a', resume=True)

@pytest.mark.parametrize('command,function', re.findall(r'^(proc-nb-[a-z]+) = "proc_nb.commands:(\w+)"', (Path(__file__).parent/'../pyproject.toml').read_text(encoding='utf-8'), re.M))
def test_help_loads_nothing_heavy(command, function, tmp_path):
    (tmp_path/command).write_text(f"""import sys
from proc_nb.commands import {function} as command
try: command()
finally: print([m for m in ('torch', 'altair', 'ipywidgets', 'numba') if m in sys.modules])""", encoding='utf-8')
    done = subprocess.run([sys.executable, tmp_path/command, '--help'], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and f'usage: {command} ' in done.stdout and done.stdout.strip().endswith('[]'), done.stdout + done.stderr

def test_progress_without_a_terminal_is_lines(tmp_path):
    said = call('proc-nb-demo', '--n-pairs', '3', '--steps', '4', '--parts', 'all', cwd=tmp_path).stderr
    assert 'of 8 steps' in said and '\r' not in said and all(len(l) < 200 for l in said.splitlines()), said

def test_demos_are_the_same_however_many_work(tmp_path):
    for n in '1', '2':
        done = call('proc-nb-demo', '--n-pairs', '3', '--steps', '4', '--parts', 'all', '--seeds', '2', '--workers', n, '--out', n, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path/n/'results.json').read_text(encoding='utf-8')) for n in '12')
    for r in one['rows'] + two['rows']: r.pop('seconds')
    assert one['rows'] == two['rows'] and (one['workers'], two['workers']) == (1, 2)

def test_rules_lists_everything(tmp_path):
    said = call('proc-nb-rules', cwd=tmp_path).stdout
    for name in ('identity', 'dyck', 'haystack'): assert f'\n  {name} ' in said

# ---- where a command begins: streams that are closed, readers that go, terminals with few characters, no home

def shell(line, cwd, **env):
    "A line of bash, as a person types it"
    env = {**os.environ, 'PATH': os.pathsep.join([str(BIN), os.environ['PATH']]), **env}
    return subprocess.run(['bash', '-c', f'set -o pipefail; {line}'], cwd=cwd, capture_output=True, text=True, timeout=300, env=env)

BASH = pytest.mark.skipif(os.name == 'nt', reason='lines of bash')

@BASH
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_goes_is_no_error(unbuffered, tmp_path):
    done = shell('proc-nb-rules | head -1; echo ${PIPESTATUS[0]}', tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert done.stderr == '' and done.stdout.split()[-1] in ('0', '1')

@BASH
def test_streams_may_be_closed(tmp_path):
    done = shell('proc-nb-demo --n-pairs 3 --steps 2 --parts all >&- 2>&-', tmp_path)
    assert done.returncode == 0 and (tmp_path/'_runs/demo/chart.png').exists()
    done = shell('proc-nb-demo --rule identiti 2>&-', tmp_path)
    assert done.returncode == 1 and done.stdout == done.stderr == ''

def test_a_terminal_with_few_characters(tmp_path):
    "What it cannot show becomes a question mark"
    few = dict(PYTHONIOENCODING='ascii', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', LC_ALL='C')
    done = subprocess.run([BIN/'proc-nb-rules'], cwd=tmp_path, capture_output=True, timeout=300, env={**os.environ, **few})
    assert done.returncode == 0 and b'haystack' in done.stdout, done.stderr
    (tmp_path/'proc-nb-x').write_text("import proc_nb.env; print('3 \u00d7 4'); raise ValueError('\u00e4')", encoding='utf-8')
    done = subprocess.run([sys.executable, tmp_path/'proc-nb-x'], capture_output=True, text=True, env={**os.environ, **few})
    assert (done.stdout, done.stderr) == ('3 ? 4\n', 'proc-nb-x: ?\n')

def test_no_home_is_told_in_words(monkeypatch):
    "A process of a user whom the system does not know, and no HOME: there was a traceback"
    from proc_nb.language import corpus
    def homeless(): raise RuntimeError('Could not determine home directory.')
    monkeypatch.setattr(corpus.Path, 'home', homeless)
    for k in ('PROC_NB_CACHE', 'XDG_CACHE_HOME'): monkeypatch.delenv(k, raising=False)
    with pytest.raises(ValueError, match='no home folder here. Name a folder .* PROC_NB_CACHE'): corpus.cache_folder()
    monkeypatch.setenv('PROC_NB_CACHE', '/tmp/mine')
    assert corpus.cache_folder() == Path('/tmp/mine')
