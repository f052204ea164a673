"Samplers against plain Python: the same distribution, much less time. `pytest tests/test_samplers.py -m full -s` prints the table."
import random, statistics, time
import pytest, torch
import checkers, plain
from proc_nb.all import *

NAMES = [k for k in [*tasks.rules, *tasks.tests] if hasattr(plain, {'set': 'set_'}.get(k, k))]
def gen(seed=0): return torch.Generator().manual_seed(seed)

@pytest.mark.parametrize('name', NAMES)
def test_plain_rows_keep_the_rule(name):
    task, rng = tasks[name](), random.Random(0)
    for _ in range(100):
        row = plain.row(name, task.settings, rng)
        row += [task.pad] * (task.seq_len - len(row))
        assert checkers.check(name, task.settings, row) and task.check(torch.tensor([row])).all()

def padded(rows, task):
    x = torch.full((len(rows), task.seq_len), task.pad)
    for i, r in enumerate(rows): x[i, :len(r)] = torch.tensor(r)
    return x

@pytest.mark.parametrize('name', NAMES)
def test_same_distribution_as_plain_python(name):
    "Means of five features, within 5 standard errors of their difference"
    task, rng, n = tasks[name](), random.Random(1), 3000
    theirs, mine = padded([plain.row(name, task.settings, rng) for _ in range(n)], task), task.batch(n, gen(1)).tokens
    def features(x):
        "Length, mean token, different tokens, greatest depth (or neighbours that are equal), the sum of the first eight tokens"
        on, k = x != task.pad, getattr(task, 'k', None)
        height = (x < k) * 2 - 1 if k else (x[:, 1:] == x[:, :-1]).long()
        different = (x.sort(1).values.diff(dim=1) > 0).sum(1)
        return torch.stack([on.sum(1), (x * on).sum(1) / on.sum(1), different, height.cumsum(1).amax(1), (x[:, :8] * on[:, :8]).sum(1)]).double()
    a, b = features(mine), features(theirs)
    z = (a.mean(1) - b.mean(1)).abs() / ((a.var(1) + b.var(1)) / n + 1e-12).sqrt()
    assert z.max() < 5, (name, z)

def seconds(f, repeats=5):
    f()
    out = []
    for _ in range(repeats):
        begun = time.process_time()
        f()
        out.append(time.process_time() - begun)
    return statistics.median(out)

@pytest.mark.full
def test_sampling_takes_little_of_a_step():
    "Processor time of 1,000 rows against a training step of the 2-layer, 4-head, width-16 network on them, one thread"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shares = {}
    for name in NAMES:
        task, g, rng = tasks[name](), gen(), random.Random(0)
        model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len))
        records = fit(model, task, steps=100, batch_size=1000, eval_every=1000)
        step, sample = seconds(lambda: next(records)), seconds(lambda: task.sample(1000, g))
        slow = seconds(lambda: [plain.row(name, task.settings, rng) for _ in range(1000)], 3)
        shares[name] = sample / step
        print(f'{name:<18} {sample * 1e3:6.2f} ms of {step * 1e3:6.1f} ms a step ({sample / step:5.1%}); plain Python {slow * 1e3:6.1f} ms, {slow / sample:4.1f} times as long')
    torch.set_num_threads(threads)
    assert max(shares.values()) < .1, shares
