"Every exercise of the course: right, blank, wrong in the ways people are wrong, hard-coded, and everything else that can come back."
import json, os, random, re, signal, sys, threading, time
from pathlib import Path
import pytest, torch
from proc_nb.course.exercises import *
from proc_nb.course.answers import exercises

LINUX = pytest.mark.skipif(sys.platform != 'linux', reason='answers have a process of their own on Linux')

def perm(n): return torch.randperm(n)
def pairs_split(tokens, pair, new):
    "Merges overlapping pairs as well"
    return [new if tuple(tokens[i:i+2]) == tuple(pair) else t for i, t in enumerate(tokens)]

def closes_by_last(word):
    opened = [c for c in word if c in '([{']
    return ')]}'['([{'.index(opened[-1])] if opened else None

def values_in_text_order(clauses):
    known = {}
    for v, (s, up) in clauses.items(): known[v] = s if up == '1' else '+' if s == known.get(up, '+') else '-'
    return known

def transfer_all(target, a, b):
    from proc_nb.models.transfer import transfer
    transfer(a, target, 'attn')
    transfer(b, target, ['mlp', 'ln'])
    return target

def swapped(target, a, b):
    from proc_nb.models.transfer import transfer
    transfer(b, target, 'attn')
    transfer(a, target, 'mlp')
    return target

def first_layer_only(before, after):
    from proc_nb.models.gpt import part_of, layer_of
    new = dict(after.named_parameters())
    return {part_of(n) for n, p in before.named_parameters() if layer_of(n) in (None, 0) and not torch.equal(p, new[n])}

def after_the_first(maps, tokens):
    found = [maps[b, :, t, row.index(row[t]) + 1] for b, row in enumerate(tokens.tolist()) for t in range(len(row)) if row[t] in row[:t]]
    return torch.stack(found).mean(0)

def same_and_self(weights, tokens): return (weights * (tokens[:, None] == tokens)).sum(1).mean()
def over_all(weights, tokens): return (weights * ((tokens[:, None] == tokens) & ~torch.eye(len(tokens)).bool())).sum(1).mean()

def crossing(row, k):
    "Counts each kind, so crossed pairs pass"
    count = [0] * k
    for t in row:
        count[t % k] += 1 if t < k else -1
        if min(count) < 0: return False
    return not any(count)

def left_open(row, k):
    held = []
    for t in row:
        if t < k: held.append(t)
        elif not held or held.pop() != t - k: return False
    return True

def best_only(rows): return {r['parts']: (1, 0, r['accuracy'], r['accuracy'], r['accuracy']) for r in rows}
def diverged_as_zero(rows):
    out = {}
    for p in {r['parts'] for r in rows}:
        xs = [r['accuracy'] or 0 for r in rows if r['parts'] == p]
        out[p] = len(xs), 0, sum(xs) / len(xs), min(xs), max(xs)
    return out

def before_as_after():
    base = exercises['Before'].answer
    class Wrong(base):
        def rows(self, n, generator):
            tokens, mask = base.rows(self, n, generator)
            return torch.cat([tokens[:, :self.length + 1], tokens[:, self.length + 1:].flip(1)], 1), mask
    return Wrong

def before_without_generator():
    base = exercises['Before'].answer
    class Wrong(base):
        def rows(self, n, generator): return base.rows(self, n, torch.Generator().manual_seed(random.randrange(2**30)))
    return Wrong

def before_always_the_same():
    base = exercises['Before'].answer
    class Wrong(base):
        def rows(self, n, generator): return base.rows(self, n, torch.Generator().manual_seed(0))
    return Wrong

def odd_mask():
    base = exercises['Before'].answer
    class Wrong(base):
        def rows(self, n, generator):
            tokens, mask = base.rows(self, n, generator)
            return tokens, ~mask
    return Wrong

def pearson(a, b): return torch.corrcoef(torch.tensor([a, b]))[0, 1].item()
def flat(o): return torch.cat([v.flatten() for v in o.values()])

def palindrome_of(x): return torch.cat([x, x.flip(1)], 1)
def last_symbol_missing(n, half, n_symbols, generator): return palindrome_of(torch.randint(1, n_symbols, (n, half), generator=generator))
def other_randomness(n, half, n_symbols, generator): return palindrome_of(torch.randint(1, n_symbols + 1, (n, half)))
def twice(n, half, n_symbols, generator): return torch.randint(1, n_symbols + 1, (n, half), generator=generator).repeat(1, 2)
def all_alike(n, half, n_symbols, generator): return palindrome_of(torch.randint(1, n_symbols + 1, (1, half), generator=generator).expand(n, -1))
def all_random(n, half, n_symbols, generator): return torch.randint(1, n_symbols + 1, (n, 2 * half), generator=generator)
def from_zero(n, half, n_symbols, generator): return palindrome_of(torch.randint(0, n_symbols, (n, half), generator=generator))
def only_ones(n, half, n_symbols, generator): return torch.ones(n, 2 * half, dtype=torch.int64)

WRONG = {}
def wrong(name, *answers): WRONG[name] = answers

wrong('copy_next', lambda seen: seen[seen.index(seen[-1]) + 1], lambda seen: seen[0], lambda seen: seen[seen.index('|') - 1], lambda seen: seen[-1])
wrong('needle_answer', lambda row: row[-2], lambda row: row[1], lambda row: row[row.index(row[-1][:-1])],
    lambda row: int(row[row.index(row[-1][:-1]) + 1]))
wrong('guess_rate', lambda n: 1 / n, lambda n: 2 / (n + 1), lambda n: sum(1 / m for m in range(1, n)) / n)
wrong('must_close', closes_by_last, lambda w: {'(': ')', '[': ']', '{': '}'}.get(w[-1:]), lambda w: '')
wrong('first_above', lambda c, l: max(c, key=lambda o: o[1])[0], lambda c, l: next((s for s, a in c if a >= l), None),
    lambda c, l: next(s for s, a in c if a > l), lambda c, l: [s for s, a in c if a > l][-1:])
wrong('changed_parts', lambda a, b: {'attn'}, first_layer_only, lambda a, b: set(), lambda a, b: ['attn'])
wrong('put_together', transfer_all, swapped, lambda target, a, b: target, lambda target, a, b: a, lambda target, a, b: None or 3)
wrong('causal_weights', lambda s: s.softmax(-1), lambda s: s.softmax(-1).tril(), lambda s: s.tril().softmax(-1),
    lambda s: s.masked_fill(torch.ones(s.shape[-1], s.shape[-1]).triu(1).bool(), -torch.inf).softmax(-2),
    lambda s: s.masked_fill(torch.ones(s.shape[-1], s.shape[-1]).triu().bool(), -torch.inf).softmax(-1))
wrong('heads_apart', lambda x, n_head: x.view(len(x), n_head, x.shape[1], -1), lambda x, n_head: x.view(*x.shape[:2], n_head, -1),
    lambda x, n_head: x.view(*x.shape[:2], -1, n_head).permute(0, 3, 1, 2))
wrong('layer_norm', lambda x, w, b: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5) * w + b,
    lambda x, w, b: (x - x.mean()) / x.std() * w + b, lambda x, w, b: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    lambda x, w, b: torch.nn.functional.layer_norm(x, x.shape[-1:], w, None, 1e-5))
wrong('count_parameters', lambda v, b, l, C: v * C + b * C + l * (12 * C * C + 13 * C) + 2 * C, lambda v, b, l, C: 2 * v * C + b * C + l * 12 * C * C,
    lambda v, b, l, C: 12 * l * C * C)
wrong('looks_one_back', lambda m: m.diagonal(0, -2, -1).mean((0, 2)), lambda m: m.diagonal(1, -2, -1).mean((0, 2)),
    lambda m: m.diagonal(-1, -2, -1).sum((0, 2)), lambda m: m.diagonal(-1, -2, -1).mean(), lambda m: m.diagonal(-1, -2, -1).sum(2).mean(0) / m.shape[-1])
wrong('induction_score', after_the_first, lambda maps, tokens: maps.diagonal(-1, -2, -1).mean((0, 2)), lambda maps, tokens: maps.mean((0, 2, 3)))
wrong('shuffled_weights', lambda w, generator: w[torch.randperm(len(w), generator=generator)],
    lambda w, generator: w[:, torch.randperm(w.shape[1], generator=generator)], lambda w, generator: torch.randn(w.shape, generator=generator),
    lambda w, generator: w.flatten()[perm(w.numel())].view_as(w), lambda w, generator: w, lambda w, generator: w.flatten().flip(0).view_as(w),
    lambda w, generator: w.flatten())
wrong('resolve', lambda c: {v: s for v, (s, _) in c.items()}, values_in_text_order, lambda c: '+', lambda c: dict.fromkeys(c, '+'))
wrong('chain_order', list, sorted, lambda c: list(c)[::-1], set)
wrong('association', same_and_self, over_all, lambda weights, tokens: weights.mean())
wrong('unit_of', lambda t: 0, lambda t: t[0][0], lambda t: len(t) - 1)
wrong('bits_per_byte', lambda l, n: sum(l) / sum(n), lambda l, n: sum(l) / len(l) / .6931, lambda l, n: sum(a / b for a, b in zip(l, n)) / len(l) / .6931,
    lambda l, n: sum(l) * .6931 / sum(n))
wrong('perplexity', lambda l: sum(2.71828 ** x for x in l) / len(l), lambda l: 2 ** (sum(l) / len(l)), lambda l: sum(l) / len(l),
    lambda l: 2.71828 ** sum(l))
wrong('merge_pair', pairs_split, lambda t, p, n: [n] + t, lambda t, p, n: t, lambda t, p, n: [n if x in p else x for x in t])
wrong('tokens_saved', lambda a, b: 1 - b[-1][0] / a[-1][0], lambda a, b: next((t for t, l in b if l <= a[-1][1]), None), lambda a, b: .5,
    lambda a, b: next((t / a[-1][0] for t, l in b if l <= a[-1][1]), None))
wrong('alignment', lambda q, d: torch.nn.functional.cosine_similarity(flat(q), flat(d), dim=0), lambda q, d: sum((q[n] * d[n]).mean() for n in q),
    lambda q, d: (q[(n := next(iter(q)))] * d[n]).sum(), lambda q, d: {n: (q[n] * d[n]).sum() for n in q})
wrong('damped_step', lambda c, g, d: torch.linalg.solve(c, g), lambda c, g, d: c @ g, lambda c, g, d: torch.linalg.solve(c + d, g), lambda c, g, d: g / d)
wrong('rank_correlation', pearson, lambda a, b: 1.,
    lambda a, b: pearson([float(i) for i in torch.tensor(a).argsort()], [float(i) for i in torch.tensor(b).argsort()]))
wrong('top_holds', lambda s, h, k: h.gather(1, s.topk(k, dim=1).indices).float().mean(), lambda s, h, k: h.any(1).float().mean(),
    lambda s, h, k: h.gather(1, s.topk(k, dim=1, largest=False).indices).any(1).float().mean(), lambda s, h, k: h[:, :k].any(1).float().mean())
wrong('palindromes', last_symbol_missing, other_randomness, twice, all_alike, all_random, from_zero, only_ones)
wrong('balanced', lambda row, k: sum(t < k for t in row) * 2 == len(row), crossing, left_open, lambda row, k: True, lambda row, k: int(left_open(row, k)))
wrong('Before', before_as_after, before_without_generator, before_always_the_same, odd_mask)
wrong('all_runs', lambda r, p, s: [(a, b, c) for a in r for b in p for c in s], lambda r, p, s: [(None, None, 0)],
    lambda r, p, s: [(a, b, c) for a in [None, *r] for b in p for c in s], lambda r, p, s: list(zip(r, p, s)))
wrong('mean_interval', lambda xs, t: (sum(xs) / len(xs), min(xs), max(xs)), lambda xs, t: sum(xs) / len(xs),
    lambda xs, t: ((m := sum(xs) / len(xs)), m - t * (h := (sum((x - m) ** 2 for x in xs) / len(xs) ** 2) ** .5), m + t * h),
    lambda xs, t: ((m := sum(xs) / len(xs)), m - t * (h := (sum((x - m) ** 2 for x in xs) / (len(xs) - 1)) ** .5), m + t * h))
wrong('sign_test', lambda w, l: .5 ** max(w, l), lambda w, l: w / (w + l) if w + l else 1., lambda w, l: .05)
wrong('summary', best_only, diverged_as_zero, lambda rows: {})
NAMES = list(exercises)
MADE = {'Before'} # asked for as a class; its wrong answers are made when needed

def answers(name): return [w() if name in MADE else w for w in WRONG[name]]

def test_every_tutorial_has_three():
    count = [e.tutorial for e in exercises.values()]
    assert {t: count.count(t) >= 3 for t in sorted(set(count))} == {f'0{i}': True for i in range(1, 10)}
    assert set(WRONG) == set(NAMES)

@pytest.mark.parametrize('name', NAMES)
def test_right(name):
    for seed in (None, 1, 2, 3): assert exercises[name].check(exercises[name].answer, seed).right

@pytest.mark.parametrize('name', NAMES)
def test_common_wrong_answers(name):
    assert len(WRONG[name]) >= 3
    for i, wrong in enumerate(answers(name)):
        for seed in (0, 1):
            out = exercises[name].check(wrong, seed)
            assert out.status == 'wrong', (name, i)
            assert out.words and (out.facts or 'asked for' in out.words)

@pytest.mark.parametrize('name', [n for n in NAMES if n not in MADE])
def test_hard_coded(name):
    "What is right for one input, given for every input"
    e, r = exercises[name], random.Random(5)
    for i in range(0, 40, 3):
        try: given = e.answer(*fresh(e.cases(r, i % e.n)))
        except Exception: continue
        if given is not None: assert e.check(lambda *args, g=given: g, 0).status == 'wrong'

@pytest.mark.parametrize('name', NAMES)
def test_blank(name):
    e = exercises[name]
    def nothing(*args): ...
    def documented(*args):
        "What it does"
        pass
    class Nothing:
        def __init__(self, length): self.length = length
        def rows(self, n, generator): ...
    for answer in (None, ..., nothing, documented, Nothing, e, lambda *args: ...): assert e.check(answer).status == 'not tried'
    assert e.check().status == 'not tried'

@pytest.mark.parametrize('name', NAMES)
def test_other_things_that_come_back(name):
    e = exercises[name]
    def broken(*args): raise KeyError('nothing here')
    given = ['text', torch.ones(9, 9, 9), {'a': object()}, float('nan')]
    for answer in (3, 'text', [1], torch.ones(2), lambda: 1, broken, *(lambda *args, g=g: g for g in given)):
        out = e.check(answer, 0)
        assert out.status == 'wrong' and len(out.words) > 10, answer
    if name not in MADE: assert 'nothing here' in e.check(broken).words and "raise KeyError('nothing here')" in e.check(broken).words

def endless(*args):
    while True: pass

def endless_and_stubborn(*args):
    while True:
        try: time.sleep(.001)
        except Exception: pass

@pytest.mark.parametrize('answer', [endless, endless_and_stubborn])
@pytest.mark.parametrize('elsewhere', [False, True])
def test_endless(answer, elsewhere, monkeypatch):
    e, found, before = exercises['guess_rate'], [], threading.active_count()
    monkeypatch.setattr(e, 'limit', .3)
    def ask(): found.append(e.check(answer))
    if elsewhere:
        t = threading.Thread(target=ask)
        t.start()
        t.join()
    else: ask()
    assert found[0].status == 'wrong' and 'never ends' in found[0].words and threading.active_count() == before

@LINUX
def test_a_regular_expression_without_end(monkeypatch):
    "It never comes back from C, where no exception reaches it: it hung the kernel"
    e = exercises['needle_answer']
    monkeypatch.setattr(e, 'limit', .3)
    def answer(row): return re.match('(k*)*b', 'k' * 60)
    out = e.check(answer)
    assert out.status == 'wrong' and 'still running after 0.3 s' in out.words and out.facts[0][0] == 'row'

@LINUX
def test_what_counts_is_the_time_of_the_processor(monkeypatch):
    "A right answer on a machine that is busy with something else is right: here it is given half of the time, and no more"
    e = exercises['guess_rate']
    monkeypatch.setattr(e, 'limit', .3)
    def answer(n):
        if n == 5: time.sleep(.6)
        return sum(1 / m for m in range(1, n + 1)) / n
    assert e.check(answer).right

@LINUX
@pytest.mark.parametrize('end, said', [(lambda: os.kill(os.getpid(), signal.SIGKILL), 'ended by the system (SIGKILL)'), (lambda: os._exit(3), 'ended the whole program'),
    (lambda: os.kill(os.getpid(), signal.SIGTERM), 'ended by the system (SIGTERM)')])
def test_an_answer_takes_only_itself_down(end, said): assert said in exercises['guess_rate'].check(lambda n: end()).words

@LINUX
def test_an_answer_prints_and_leaves_everything_as_it_was(capsys):
    seen = []
    def answer(n):
        seen.append(n)
        print('n is', n)
        return 0
    exercises['guess_rate'].check(answer)
    assert capsys.readouterr().out == 'n is 1\n' and seen == []

@LINUX
def test_an_answer_that_prints_without_end(monkeypatch, capsys):
    e = exercises['guess_rate']
    monkeypatch.setattr(e, 'limit', .2)
    def answer(n):
        while True: print('again')
    assert 'never ends' in e.check(answer).words and len(capsys.readouterr().out) <= 30_000

def test_after_training_in_this_process():
    "Threads of the copied process are not there: an answer that computes gradients does so all the same"
    x = torch.randn(300, 300, requires_grad=True)
    (x @ x).sum().backward()
    def answer(n):
        y = torch.randn(300, 300, requires_grad=True)
        (y @ y).relu().sum().backward()
        return sum(1 / m for m in range(1, n + 1)) / n
    assert exercises['guess_rate'].check(answer).right

def emptied(clauses):
    out = exercises['resolve'].answer(dict(clauses))
    clauses.clear()
    return out
def popped(row, k): return exercises['balanced'].answer([row.pop(0) for _ in range(len(row))], k)
def sorted_first(xs, t):
    xs.sort()
    return exercises['mean_interval'].answer(xs, t)
def in_place_softmax(scores): return exercises['causal_weights'].answer(scores.clone()).add(scores.zero_())
@pytest.mark.parametrize('name, answer, what', [('resolve', emptied, 'clauses'), ('balanced', popped, 'row'), ('mean_interval', sorted_first, 'xs'), ('causal_weights', in_place_softmax, 'scores')])
def test_an_answer_that_changes_its_input_is_told_so(name, answer, what):
    out = exercises[name].check(answer, 0)
    assert out.status == 'wrong' and f'it changes `{what}`' in out.words

def no_way(*args): raise AssertionError('not this way')
def hung(row): return re.match('(k*)*b', 'k' * 60)
MOST = 1
def share(m): return MOST / m
def by_a_helper(n):
    print('asked')
    return sum(share(m) for m in range(1, n + 1)) / n

@pytest.mark.parametrize('name, answer, said', [('guess_rate', by_a_helper, 'nothing to object to'), ('needle_answer', hung, 'still running after 0.3 s')])
def test_the_way_without_fork(name, answer, said, monkeypatch, capsys):
    "What Windows and macOS have: a new Python, which also ends what never comes back from C"
    monkeypatch.setattr(sys, 'platform', 'win32')
    for way in '_apart', '_here': monkeypatch.setattr(f'proc_nb.course.exercises.{way}', no_way)
    monkeypatch.setattr(exercises[name], 'limit', .3)
    out = exercises[name].check(answer, 0)
    assert said in out.words and ('asked' in capsys.readouterr().out) == out.right

def test_without_fork_and_without_a_source(monkeypatch):
    "A lambda runs in the notebook itself, which the reader may interrupt; nothing is drawn from the global generator"
    monkeypatch.setattr(sys, 'platform', 'win32')
    for way in '_apart', '_elsewhere': monkeypatch.setattr(f'proc_nb.course.exercises.{way}', no_way)
    monkeypatch.setattr(torch.random, 'fork_rng', no_way)
    def interrupted(): raise KeyboardInterrupt
    e = exercises['guess_rate']
    assert e.check(lambda n: 1.).status == 'wrong' and 'KeyboardInterrupt' in e.check(lambda n: interrupted()).words

def test_a_program_makes_an_answer_once_more():
    def inner(n): return share(n)
    def closed(n): return inner(n)
    assert [l.split('=')[0].strip() for l in as_program(inner).splitlines() if l] == ['from test_exercises import share as share', 'def inner(n): return share(n)']
    assert as_program(closed) == '' and as_program(lambda n: n) == '' and as_program(3) == ''

@pytest.mark.parametrize('end', [SystemExit, KeyboardInterrupt, MemoryError, RecursionError, GeneratorExit])
def test_ends_of_the_world(end):
    "What would end the program elsewhere is told like any other exception"
    def answer(n): raise end('enough')
    out = exercises['guess_rate'].check(answer)
    assert out.status == 'wrong' and f'It raised {end.__name__}: enough' in out.words and 'raise end' in out.words

def test_an_interrupt_of_the_reader_is_no_answer():
    e, before = exercises['guess_rate'], threading.active_count()
    was = e.check()
    reader = os.getpid()
    def answer(n):
        os.kill(reader, signal.SIGINT)
        for _ in range(500): time.sleep(.01)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler) # a process in the background may ignore it
    try:
        with pytest.raises(KeyboardInterrupt): e.check(answer)
    finally: signal.signal(signal.SIGINT, handler)
    assert e.last is was and threading.active_count() == before

@pytest.mark.parametrize('name', ['guess_rate', 'copy_next', 'changed_parts'])
def test_an_answer_without_end_in_memory_is_told(name):
    vast = torch.zeros(1).expand(10**11)
    for given in (vast, [vast] * 5, {'a': vast}):
        out = exercises[name].check(lambda *args: given, 0)
        assert out.status == 'wrong' and 'never ends' not in out.words

def test_global_randomness_is_left_alone():
    before = torch.random.get_rng_state()
    exercises['shuffled_weights'].check(lambda w, generator: w.flatten()[torch.randperm(w.numel())].view_as(w))
    assert torch.equal(before, torch.random.get_rng_state())

def test_inputs_are_new_each_time():
    e = exercises['needle_answer']
    seen = [[e.cases(random.Random(s), 20) for _ in range(1)] for s in range(3)]
    assert seen[0] != seen[1] != seen[2]

@pytest.mark.parametrize('name', NAMES)
def test_shows_itself(name):
    e = exercises[name]
    for html in (e._repr_html_(), e.hint().markup, e.solution().markup):
        assert html.count('<div') == html.count('</div>')
        assert not re.search(r'[^-](color|background):', html), 'the page decides on colours, light or dark'
    assert len(e.question) > 20 and len(str(e.hint())) > 20 and str(e.hint()) not in str(e.solution())
    assert str(e.solution()).startswith(('def ', 'class ')) and '@exercise' not in str(e.solution())

TUTORIALS = Path(__file__).parent.parent/'tutorials'
def code(book): return [''.join(c['source']) for c in json.loads(book.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']

@pytest.mark.parametrize('book', sorted(p for p in TUTORIALS.glob('0*.ipynb') if ".check(" in p.read_text(encoding='utf-8')), ids=lambda p: p.stem)
def test_cells_of_a_tutorial(book):
    "Its exercise cells as they stand, and solved with nothing but what the tutorial imports"
    cells, tutorial, space = code(book), book.stem[:2], {}
    for c in cells:
        if re.match('import|from', c): exec(c, space)
    asked = [c for c in cells if re.search(r"^exercises\['\w+'\]\.check\(", c, re.M)]
    assert [f"exercises['{n}'].check({n})" in c for n, c in zip(exercises.of(tutorial), asked)] == [True] * len(exercises.of(tutorial))
    for c in asked:
        head, check = c.split('\n\n')
        exec(head, space)
        assert eval(check, space).status == 'not tried'
        exec(str(exercises[re.search(r"'(\w+)'", check)[1]].solution()), space)
        assert eval(check, space).right

def test_what_is_shown_is_escaped():
    out = exercises['needle_answer'].check(lambda row: '<script>alert(1)</script>')
    assert '<script>' not in out.markup and '&lt;script&gt;' in out.markup

def test_no_answer_hides_a_name_of_the_package():
    from proc_nb import all as everything
    assert not set(exercises) & set(everything.__all__)

def test_a_name_that_does_not_exist():
    with pytest.raises(KeyError, match="Did you mean 'needle_answer'"): exercises['needle_anser']
    with pytest.raises(KeyError, match='tutorial with exercises'): exercises.of('10')
