"Runs side by side end as runs alone, one thread each; what stops them is told, and nothing is lost."
import os, signal, subprocess, sys, threading, traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
import pytest, torch
from proc_nb.all import *
from proc_nb.tasks.sequences import Identity
from proc_nb.train.workers import in_step, side_by_side, threads_for, threads_of, workers_on

COPY = Identity(length=3, n_symbols=6)

def network(task=COPY, seed=0, **sizes):
    return GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, **sizes), seed=seed)

def run(seed, steps=12, task=COPY, **kwargs):
    return fit(network(task, seed), task, steps, 16, seed=seed, eval_every=4, eval_rows=30, **kwargs)

def told(rec): return rec.step, rec.loss, rec.accuracy, rec.lr

def python(code, *args, **kwargs):
    return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)

@pytest.mark.parametrize('workers', [1, 2, 3])
def test_runs_side_by_side_are_runs_alone(workers):
    runs = {seed: partial(run, seed) for seed in range(5)}
    alone = {seed: [told(r) for r in run(seed)] for seed in runs}
    for order in (list(runs), list(runs)[::-1]):
        got = {seed: [] for seed in runs}
        for seed, rec in side_by_side({seed: runs[seed] for seed in order}, workers, seconds=0): got[seed].append(told(rec))
        assert got == alone

def test_every_kind_of_run_is_the_same_in_a_thread():
    def many(): return fit_many([network(seed=i) for i in range(3)], COPY, 6, 8, eval_every=3, eval_rows=20)
    def dropped(seed): return fit(network(seed=seed, dropout=.2), COPY, 8, 8, seed=seed)
    runs = dict(many=many, a=partial(dropped, 0), b=partial(dropped, 1))
    alone, got = {k: [repr(r) for r in make()] for k, make in runs.items()}, {k: [] for k in runs}
    for key, rec in side_by_side(runs, 3, seconds=0): got[key].append(repr(rec))
    assert got == alone

def test_two_fits_in_two_threads_of_ones_own():
    want = [[told(r) for r in run(seed)] for seed in (0, 1)]
    def alone(seed):
        with threads_of(3): return [(*told(r), torch.get_num_threads()) for r in run(seed)]
    with ThreadPoolExecutor(2) as pool: got = list(pool.map(alone, (0, 1)))
    assert [[r[:-1] for r in rs] for rs in got] == want and {r[-1] for rs in got for r in rs} == {3}

def test_in_step_rests_between_steps():
    fits = {seed: run(seed) for seed in (0, 1, 2)}
    together = in_step(fits, 2)
    rows = [next(together) for _ in range(5)]
    assert [{r.step for r in row.values()} for row in rows] == [{i + 1} for i in range(5)]
    assert {seed: next(f).step for seed, f in fits.items()} == {0: 6, 1: 6, 2: 6} # nobody has gone on meanwhile

class Looking(Identity):
    "Notes how many threads there are when rows are asked for"
    def sample(self, *args, **kwargs):
        self.seen.append(torch.get_num_threads())
        return super().sample(*args, **kwargs)

def looking(**sizes):
    task = Looking(length=3, n_symbols=6)
    task.seen = []
    return task, network(task, **sizes)

def elsewhere(f):
    with ThreadPoolExecutor(1) as one: return one.submit(f).result()

def test_a_step_uses_one_thread_and_leaves_the_number_alone():
    mine, default = torch.get_num_threads(), elsewhere(torch.get_num_threads)
    with threads_of(3):
        task, model = looking()
        recs = fit(model, task, 3, 8, eval_every=2, eval_rows=10)
        task.seen.clear()
        for _ in recs: assert torch.get_num_threads() == 3
        assert task.seen == [1] * 5 and elsewhere(torch.get_num_threads) == default # three steps, two evaluations
        evaluate(model, task, 10)
        assert task.seen[5:] == [1]
        for _ in fit_many([model, network(task)], task, 2, 8, eval_every=2, eval_rows=10): assert torch.get_num_threads() == 3
        half = fit(model, task, 3, 8)
        next(half) # and never goes on
        assert torch.get_num_threads() == 3
        with pytest.raises(FloatingPointError): list(fit(network(task), task, 30, lr=1e30, warmup=0, clip=1e9))
        assert torch.get_num_threads() == 3
    assert (torch.get_num_threads(), elsewhere(torch.get_num_threads)) == (mine, default)

def test_threads_that_are_new_meanwhile_get_what_they_would_have_got():
    with threads_of(3):
        default = elsewhere(torch.get_num_threads)
        for _ in range(20):
            with threads_of(1): assert elsewhere(torch.get_num_threads) == default
            with threads_for(network()), ThreadPoolExecutor(4) as pool: assert set(pool.map(lambda _: torch.get_num_threads(), range(4))) == {default}

def test_a_large_network_keeps_its_threads():
    task, model = looking(n_embd=320, n_layer=1)
    assert sum(p.numel() for p in model.parameters()) > 1_000_000
    with threads_of(2): next(fit(model, task, 1, 2, eval_rows=2))
    assert task.seen and set(task.seen) == {2}

@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='threads are counted in /proc')
def test_no_team_of_threads_is_ever_made():
    code = '''import os, torch
torch.set_num_threads(6)
from proc_nb.models.attention import *
from proc_nb.models.gpt import *
from proc_nb.models.checkpoint import *
from proc_nb.tasks.downstream import Haystack
from proc_nb.files import *
from proc_nb.train.loop import *
task = Haystack(n_pairs=10)
before = len(os.listdir('/proc/self/task'))
for rec in fit(GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len)), task, 3, 400): pass
print(before, len(os.listdir('/proc/self/task')), torch.get_num_threads())'''
    said, err = python(code).communicate(timeout=300)
    before, after, threads = map(int, said.split() or [0, 1, 2])
    assert after - before < 5 and threads == 6, err # PyTorch's team would be five more

def test_workers_are_counted():
    assert list(side_by_side({})) == [] and list(in_step({})) == []
    for bad in (0, -1, 1.5, 'two'):
        with pytest.raises(ValueError, match='workers'): workers_on('cpu', bad)
        with pytest.raises(ValueError, match='workers'): next(side_by_side(dict(a=partial(run, 0)), bad))

def no_more_rows(): raise RuntimeError('there are no more rows')

def failing(n):
    yield from run(0, n)
    no_more_rows()

@pytest.mark.parametrize('workers', [1, 2])
def test_a_failure_is_told_with_its_run_and_its_trace(workers, tmp_path):
    got = []
    def go():
        for key, rec in side_by_side({('broken', 3): partial(failing, 4), 'whole': partial(run, 1, 10**6, run_dir=tmp_path)}, workers, seconds=0): got.append(key)
    with pytest.raises(RuntimeError, match='there are no more rows') as e: go()
    assert e.value.__notes__ == ["This happened in the run ('broken', 3)."]
    assert 'in no_more_rows' in ''.join(traceback.format_exception(e.value))
    assert got.count(('broken', 3)) == 4 # what came before the failure has come
    assert (tmp_path/'checkpoint.safetensors').exists() == (workers == 2) # the other run was under way, and has saved
    assert not [t for t in threading.enumerate() if t.name.startswith('proc-nb run')]

def test_a_failure_while_a_run_is_made_or_asked_for():
    def none(): raise KeyError('no such rule')
    with pytest.raises(KeyError) as e: list(side_by_side(dict(a=partial(run, 0), b=none), 2))
    assert e.value.__notes__ == ["This happened in the run 'b'."]
    def pairs():
        yield 'a', partial(run, 0, 10**6)
        raise OSError('the list has an end that cannot be read')
    with pytest.raises(OSError, match='cannot be read'): list(side_by_side(pairs(), 2))

def test_who_stops_asking_ends_all_runs_with_their_checkpoints(tmp_path):
    recs = side_by_side({i: partial(run, i, 10**6, run_dir=tmp_path/str(i)) for i in range(3)}, 2)
    seen = {next(recs)[0] for _ in range(30)}
    recs.close()
    assert seen <= {0, 1} and all((tmp_path/f'{i}/checkpoint.safetensors').exists() for i in seen) and not (tmp_path/'2').exists()
    assert not [t for t in threading.enumerate() if t.name.startswith('proc-nb run')]

MAIN = '''import sys, torch
from functools import partial
from proc_nb.models.attention import *
from proc_nb.models.gpt import *
from proc_nb.models.checkpoint import *
from proc_nb.files import *
from proc_nb.train.loop import *
from proc_nb.tasks.core import Task
from proc_nb.tasks.sequences import Identity
from proc_nb.train.workers import side_by_side
class Mine(Identity):
    "A task of a notebook or a script, which no other process knows"
task = Mine(length=3, n_symbols=6)
def run(i): return fit(GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len), seed=i), task, int(sys.argv[1]), 8, seed=i, eval_every=50, run_dir=f'{sys.argv[2]}/{i}')
'''

def test_a_task_of_ones_own_script(tmp_path):
    said, err = python(MAIN + "for i, rec in side_by_side({i: partial(run, i) for i in range(3)}, 2): pass\nprint('whole')", 6, tmp_path).communicate(timeout=300)
    assert said.strip() == 'whole' and len([*tmp_path.glob('*/checkpoint.safetensors')]) == 3, err

def test_ctrl_c_ends_everything_and_loses_nothing(tmp_path):
    code = MAIN + '''
at = {}
try:
    for i, rec in side_by_side({i: partial(run, i) for i in range(2)}, 2):
        at[i] = rec.step
        if len(at) == 2: print('both', flush=True)
except KeyboardInterrupt: print('stopped', *(load_tensors(f'{sys.argv[2]}/{i}/checkpoint.safetensors')[1]['done'] >= at[i] for i in at), flush=True)
'''
    p = python(code, 10**7, tmp_path, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    try:
        assert p.stdout.readline().strip() == 'both', p.stderr.read()
        p.send_signal(signal.SIGINT)
        said, err = p.communicate(timeout=120)
    finally: p.kill()
    assert said.strip().splitlines()[-1] == 'stopped True True' and p.returncode == 0, err
