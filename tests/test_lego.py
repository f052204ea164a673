"LEGO: chains are right for any size and group, and hard-wired heads compute what they say."
from dataclasses import replace
import json
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from scipy.stats import fisher_exact
from proc_nb.all import *
from proc_nb.lego.heads import accuracy_by_place, count_or_follow, flip_effect
from proc_nb.lego.reader import mimic, mimic_kl, Pretrained, reader
from proc_nb.lego.pretrained import HiddenWords, pretrained_reader, STARTS
from proc_nb.lego.task import GROUPS, Group, group_of
from proc_nb.models.wired import attention_flops, counted_flops, hardwire
from proc_nb.lego.task import group_fault
from proc_nb.models.wired import EqualTokens, associate, same_weights
from proc_nb.lego.experiments import EXPERIMENTS, mimic_run, runs_of
from proc_nb.lego.findings import CHAIN, curriculum, equal_norm, RULES, SHORT
from proc_nb.study.findings import fisher, mean_power, of_shares, share_power, shares_verdict
from proc_nb.study.rows import Experiment
from proc_nb.models.transfer import perturb

def gen(seed=0): return torch.Generator().manual_seed(seed)

@given(n=st.integers(1, 30), m=st.integers(0, 30), chains=st.integers(0, 5), side=st.integers(-1, 8),
    group=st.sampled_from(['Z2', 'Z5', 'D3', 'D5', 'Q9']), ask=st.sampled_from(['inside', 'chain', 'text', 'before']), seed=st.integers(0, 99))
def test_accepts_or_refuses(n, m, chains, side, group, ask, seed):
    fine = 1 <= m <= n and chains >= 1 and side >= 0 and chains * n + side <= 26 and group in GROUPS and ask in ('inside', 'chain', 'text')
    kw = dict(group=group, n_vars=n, n_supervised=m, n_chains=chains, n_distractors=side, ask=ask)
    if not fine:
        with pytest.raises((ValueError, KeyError)): tasks['lego'](**kw)
        return
    task = tasks['lego'](**kw)
    b = task.batch(20, gen(seed))
    assert task.check(b.tokens).all() and b.tokens.shape[1] == task.seq_len
    assert (b.score_mask.sum(1) == n * chains).all() and (b.loss_mask.sum(1) == m * chains).all() and (b.score_mask | ~b.loss_mask).all()
    place = task.places(b.tokens)
    assert (place[b.loss_mask] < m).all() and (place[b.score_mask & ~b.loss_mask] >= m).all()
    for row, target, at in zip(b.tokens, b.targets, b.score_mask):
        found = task.solve(row)
        assert [found[t] for t in row[at].tolist()] == target[at].tolist()

KINDS = [(100_000, dict()), (100_000, dict(group='D3')), (20_000, dict(n_vars=6, n_chains=3)),
    (20_000, dict(n_vars=8, n_distractors=6)), (20_000, dict(n_vars=8, ask='text'))]
@pytest.mark.parametrize('n, kw', KINDS)
def test_solver_agrees_with_sampler_on_100_000_chains(n, kw):
    task = tasks['lego'](**kw)
    b, asked = task.batch(n, gen()), range(*task.asked().indices(task.seq_len))
    for row, target, at in zip(b.tokens.tolist(), b.targets.tolist(), b.score_mask.tolist()):
        found = task.solve(row)
        assert all(found[row[i]] == target[i] for i in asked if at[i])

def test_any_group_by_its_table():
    def times(a, b): # quaternions: 1, i, j, k, then the same with a minus
        sign = (a // 4 + b // 4 + [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]][a % 4][b % 4]) % 2
        return 4 * sign + (a % 4 ^ b % 4)
    table = [[times(a, b) for b in range(8)] for a in range(8)]
    g = Group(table, '1 i j k -1 -i -j -k'.split())
    assert not g.abelian and g.names[table[1][2]] == 'k' and g.names[table[2][1]] == '-k' and g.names[table[3][3]] == '-1'
    task = tasks['lego'](group=table, n_vars=6, n_supervised=3)
    b = task.batch(500, gen())
    assert task.check(b.tokens).all() and torch.equal(task.resolved(b.tokens)[b.score_mask], b.targets[b.score_mask])

# ---- groups of one's own

QUATERNIONS = [[4 * ((a // 4 + b // 4 + [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]][a % 4][b % 4]) % 2) + (a % 4 ^ b % 4) for b in range(8)] for a in range(8)]
UNITS = '1 i j k -1 -i -j -k'.split()
FORMS = dict(lists=lambda: dict(group=QUATERNIONS, names=UNITS), array=lambda: dict(group=np.array(QUATERNIONS), names=np.array(UNITS)),
    numbers=lambda: dict(group=[[np.int32(x) for x in r] for r in QUATERNIONS], names=UNITS), tensor=lambda: dict(group=torch.tensor(QUATERNIONS), names=tuple(UNITS)),
    group=lambda: dict(group=Group(QUATERNIONS, UNITS)))
@pytest.mark.parametrize('form', FORMS)
def test_a_group_may_come_in_any_form(form, tmp_path):
    task = tasks['lego'](n_vars=4, n_supervised=2, **FORMS[form]())
    assert task.group.names == UNITS and len(set(task.token_names)) == task.vocab_size
    b = task.sample(50, gen())
    assert task.check(b.tokens).all() and torch.equal(task.resolved(b.tokens)[b.score_mask], b.targets[b.score_mask])
    save_model(reader(task, n_embd=16, n_layer=1), tmp_path/'m.safetensors', task=task)
    back = load_model(tmp_path/'m.safetensors').task
    assert repr(back) == repr(task) and back.token_names == task.token_names and torch.equal(back.group.table, task.group.table)

def test_groups_that_are_none_are_refused():
    for odd in (np.array(QUATERNIONS) / 1., np.array(QUATERNIONS) > 3, np.zeros((2, 2, 2), int)):
        with pytest.raises(ValueError, match='whole numbers'): tasks['lego'](odd, 4, 2)
    with pytest.raises(ValueError, match='different names'): tasks['lego']('Z2', 4, 2, names=['a', 'a'])
    with pytest.raises(ValueError, match='2 elements need 2 names'): tasks['lego']('Z2', 4, 2, names=['a'])
    assert 'names' not in repr(tasks['lego']('Z2', 4, 2)) # stored studies know their tasks by this

# ---- probes, with models that are made to fool them

class Rule(torch.nn.Module):
    "A reader that answers by a rule on tokens"
    def __init__(self, rule, vocab):
        super().__init__()
        self.rule, self.vocab, self.p = rule, vocab, torch.nn.Parameter(torch.zeros(1))
    def forward(self, tokens, at): return torch.nn.functional.one_hot(self.rule(tokens)[at], self.vocab)

def swapped(task):
    "The right value at the same place of the other chain"
    def rule(tokens):
        right, place, chain = task.resolved(tokens), task.places(tokens), task.chains(tokens)
        same = (place[:, :, None] == place[:, None]) & (chain[:, :, None] == 1 - chain[:, None]) & (place >= 0)[:, None]
        return torch.where(place >= 0, right.gather(1, same.long().argmax(-1)), right)
    return Rule(rule, task.vocab_size)

@pytest.mark.parametrize('group', ['Z2', 'Z3', 'D3'])
def test_answering_with_the_other_chain_is_no_following(group):
    task = tasks['lego'](group, 3, 3, n_chains=2)
    follow, swap = Rule(task.resolved, task.vocab_size), swapped(task)
    assert torch.equal(flip_effect(follow, task), torch.ones(3, 3).triu()) and not flip_effect(follow, task, across=True).any()
    assert not flip_effect(swap, task).any() and torch.equal(flip_effect(swap, task, across=True), torch.ones(3, 3).triu())

def counting(task):
    def rule(tokens):
        ops, out = tokens[:, 3:task.text_len - 1:5], task.group.unit
        for i in range(ops.shape[1]): out = task.group.table[ops[:, i], out]
        return out[:, None].expand_as(tokens)
    return rule

SHAPES = dict(one=dict(n_vars=4), two=dict(n_vars=2, n_chains=2), three=dict(n_vars=3, n_chains=3), side=dict(n_vars=3, n_distractors=2))
@pytest.mark.parametrize('group', ['Z2', 'Z3'])
@pytest.mark.parametrize('shape', SHAPES)
def test_counting_is_told_from_following(group, shape):
    task = tasks['lego'](group, n_supervised=1, **SHAPES[shape])
    rows = tasks['lego'](group, 3, 3, n_distractors=1) if shape == 'one' else task
    def found(rule): return count_or_follow(Rule(rule, task.vocab_size), task)
    count, follow = found(counting(task)), found(rows.resolved)
    assert (count['counts'], follow['follows'], follow['right'], count['place']) == (1, 1, 1, rows.n_vars)
    assert (count['follows'], follow['counts']) == (0, 0) # exactly, whatever the rows
    def some_sign(tokens): return tokens[:, 8:9].expand_as(tokens) # an operator somewhere in the row
    def few_signs(tokens): return task.group.table[tokens[:, 3], tokens[:, 8]][:, None].expand_as(tokens)
    for lean in (some_sign, few_signs): assert abs(found(lean)['counts']) < .08 # these move with clauses beside the chain, as counting does

def test_where_order_matters_there_is_nothing_to_count():
    with pytest.raises(ValueError, match='order of operations matters'): count_or_follow(None, tasks['lego']('D3', 4, 4))

@given(n=st.integers(1, 6), chains=st.integers(1, 4), side=st.integers(0, 2), seed=st.integers(0, 99))
def test_chains_are_found(n, chains, side, seed):
    task = tasks['lego'](n_vars=n, n_supervised=1, n_chains=chains, n_distractors=side)
    b = task.batch(5, gen(seed))
    got = task.chains(b.tokens)
    for row, which in zip(b.tokens.tolist(), got.tolist()):
        said = task.clauses(row)
        roots = [l for l in said if said[l][1] == task.one]
        assert [which[i] for i in range(1, 5 * task.n_clauses, 5)] == [roots.index(task.path(said, l)[-1]) for l in said]

def test_values_and_operators_are_even():
    for group in ('Z2', 'D3'):
        task = tasks['lego'](group=group)
        b = task.batch(20_000, gen())
        k = len(task.group)
        for x in (b.targets[b.score_mask], b.tokens[:, 3:-1:5].flatten()): assert (x.bincount(minlength=k) / len(x) - 1 / k).abs().max() < .005

def test_the_last_value_of_a_sign_chain_is_the_product_of_all_signs():
    for group, counts in (('Z2', True), ('D3', False)):
        task = tasks['lego'](group=group)
        b = task.batch(500, gen())
        last = torch.stack([t[p == 11][0] for t, p in zip(b.targets, task.places(b.tokens))])
        table, ops = task.group.table, b.tokens[:, 3:-1:5]
        product = ops[:, 0]
        for i in range(1, 12): product = table[ops[:, i], product]
        assert bool((product == last).all()) == counts

@given(st.sampled_from(list(GROUPS)), st.data())
def test_relabelled_groups_are_groups_and_damaged_ones_are_not(name, data):
    g = group_of(name)
    k = len(g)
    p = torch.tensor(data.draw(st.permutations(range(k))))
    again = torch.empty_like(g.table)
    again[p[:, None], p] = p[g.table]
    assert group_fault(again, list(range(k))) == ''
    task = tasks['lego'](group=again.tolist(), n_vars=4, n_supervised=2)
    assert task.check(task.batch(20, gen()).tokens).all()
    a, b = data.draw(st.integers(0, k - 1)), data.draw(st.integers(0, k - 1))
    again[a, b] = (again[a, b] + data.draw(st.integers(1, k - 1))) % k
    with pytest.raises(ValueError, match='not a group'): Group(again.tolist())

@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=4, max_size=4))
def test_any_table_is_a_group_or_says_why_not(table):
    fault = group_fault(torch.tensor(table), 'abcd')
    laws = [[table[table[a][b]][c] == table[a][table[b][c]] for a in range(4) for b in range(4) for c in range(4)]]
    unit = [e for e in range(4) if table[e] == [0, 1, 2, 3] and [r[e] for r in table] == [0, 1, 2, 3]]
    good = all(laws[0]) and unit and all(any(table[a][b] == table[b][a] == unit[0] for b in range(4)) for a in range(4))
    assert bool(good) == (fault == '')

@given(T=st.integers(1, 40), kinds=st.integers(1, 40), causal=st.booleans(), seed=st.integers(0, 999))
def test_association_without_a_matrix(T, kinds, causal, seed):
    tokens, v = torch.randint(kinds, (3, T), generator=gen(seed)), torch.randn(3, T, 5, generator=gen(seed))
    assert torch.allclose(associate(v, EqualTokens(tokens), causal), same_weights(tokens, causal) @ v, atol=1e-5)

@given(roles=st.lists(st.sampled_from(['free', 'local', 'association']), min_size=4, max_size=4), causal=st.booleans())
def test_flops_and_parameters_are_exact(roles, causal):
    heads = {k: [h for h, r in enumerate(roles) if r == k] for k in ('local', 'association')}
    cfg = GPTConfig(vocab_size=40, block_size=30, n_embd=32)
    m = hardwire(GPT(replace(cfg, causal=causal)), **heads)
    tokens = torch.randint(40, (2, 30), generator=gen())
    rest = 2 * 30 * (2 * 2 * 8 * 32**2 + 2 * 32 * 40)
    assert counted_flops(m, tokens) == rest + sum(attention_flops(b.attn, 30, 2)['flops'] for b in m.blocks)
    left = m.h[0].attn.c_attn.weight.numel()
    assert left == 32 * (32 + 2 * 8 * roles.count('free'))

def test_gradients_through_wired_heads():
    m = hardwire(GPT(GPTConfig(vocab_size=40, block_size=12, n_embd=16, causal=False)), learn=True).double()
    tokens = torch.randint(9, (2, 12), generator=gen())
    equal = EqualTokens(tokens)
    x = torch.randn(2, 12, 16, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: m.h[0].attn(x, equal=equal), x)

def test_a_wired_reader_resumes(tmp_path):
    task = tasks['lego'](n_vars=3, n_supervised=2)
    def fresh(): return hardwire(reader(task, shared=True, n_embd=16), learn=True)
    once, twice = fresh(), fresh()
    list(fit(once, task, steps=6, eval_every=3, eval_rows=20))
    for steps in (3, 6): list(fit(twice, task, steps=steps, eval_every=3, eval_rows=20, run_dir=tmp_path, resume=True))
    assert all(torch.equal(v, twice.state_dict()[k]) for k, v in once.state_dict().items())

WIRINGS = dict(association=[0], local=[3]), dict(local=[2], association=[]), dict(kernel=[1, 3, 1], learn=True), dict(layers=[0])
@given(shared=st.booleans(), wired=st.lists(st.sampled_from(WIRINGS), max_size=1))
def test_a_saved_reader_comes_back_as_it_was(tmp_path_factory, shared, wired):
    task, path = tasks['lego'](n_vars=3, n_supervised=2), tmp_path_factory.mktemp('saved')/'m.safetensors'
    m = reader(task, shared, seed=4, n_embd=16)
    for w in wired: hardwire(m, **w)
    save_model(m, path, task=task)
    back, rows = load_model(path), task.sample(3, gen()).tokens
    assert back.config == m.config and back.config.shared == shared and not back.causal
    assert torch.equal(back(rows), m(rows)) and torch.equal(back.attention(rows), m.attention(rows))
    save_model(back, path)
    assert torch.equal(load_model(path)(rows), m(rows))

def test_mimicking_is_measured_at_its_last_step():
    rows = list(mimic_run(0, False, steps=3, batch_size=4)) # measured every 50 steps
    assert [r['step'] for r in rows] == [0, 3] and rows[0]['association'] != rows[1]['association']

WATCHED = 'readers', 'mimic', 'wired'
def test_stored_experiments_say_what_they_were_made_with():
    for name in WATCHED:
        study, (about, rows) = EXPERIMENTS[name], stored(f'lego_{name}').values()
        assert set(about['settings']) == {r['setting'] for r in rows} == set(study.lines) and about['command'] == study.command
        assert about['seeds'] == sorted({r['seed'] for r in rows}) and about['hardware'] and len(about['seeds']) == study.seeds
        for k, said in about['settings'].items():
            assert (said['task'], said['rates']['steps']) == (study.fixed['task'], study.fixed['steps'])
            assert {max(r['step'] for r in run) for run in runs_of([r for r in rows if r['setting'] == k])[k]} == {study.fixed['steps']}

def test_stored_findings():
    last = {n: {k: [run[-1] for run in runs] for k, runs in runs_of(EXPERIMENTS[n].rows()).items()} for n in WATCHED}
    assert all(r['places'][2] < .6 for k, runs in last['readers'].items() if 'random' in k for r in runs)
    followers = [r for k, runs in last['readers'].items() if 'mimicked' in k for r in runs if min(r['places']) > .95]
    assert len(followers) == 4 # answers hang on operators up to their own and on no other
    assert all((torch.tensor(r['flips']) - torch.ones(3, 3).triu()).abs().max() < .06 for r in followers)
    assert min(r['places'][2] for r in last['wired']['BERT-like, two of four heads wired']) > .8
    assert all(r['local'] < .1 and r['association'] < .1 for runs in last['mimic'].values() for r in runs)

# ---- findings: written down before, computed from what is finished

def test_enough_runs_for_a_verdict():
    for name in ('length', 'shortcuts'): assert share_power(EXPERIMENTS[name].seeds) >= .8 > share_power(EXPERIMENTS[name].seeds - 1)
    assert mean_power(len(RULES)) >= .8
    assert fisher(8, 9, 2, 9) == pytest.approx(fisher_exact([[8, 1], [2, 7]])[1])

@given(st.data())
def test_a_verdict_waits_for_its_runs_and_knows_its_direction(data):
    n, m = (data.draw(st.integers(0, 12)) for _ in range(2))
    k, l = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    rows = [dict(setting=s, did=i < did) for s, did, of in (('a', k, n), ('b', l, m)) for i in range(of)]
    def said(*order): return of_shares('?', '', rows, lambda r: r['did'], {s: [s] for s in order}, 9).verdict
    verdict, other = said(*'ab'), said(*'ba')
    if min(n, m) < 9: assert verdict.startswith('cannot tell yet') and verdict == other
    else:
        assert verdict == shares_verdict(k, n, l, m)
        assert (verdict, other) in [('confirmed here', 'refuted here'), ('refuted here', 'confirmed here'), ('no difference seen',) * 2]

@pytest.fixture
def made(): return []

@pytest.fixture
def tiny(made):
    "A study of four runs that says what it did"
    def run(seed, a):
        made.append((a, seed))
        return dict(places=[a / 7])
    return Experiment('tiny', '?', run, dict(x=dict(a=1), y=dict(a=2)), 2, dict(steps=1), 'none')

def test_a_stopped_study_goes_on(tiny, made, tmp_path):
    tiny.go_on(tmp_path, seeds=[0])
    file = tmp_path/'tiny.jsonl'
    torn = file.read_text(encoding='utf-8')[:-20]
    file.write_text(torn, encoding='utf-8') # killed while it wrote
    assert [r['setting'] for r in tiny.finished(tmp_path)] == ['x']
    rows = tiny.go_on(tmp_path)
    assert made == [(1, 0), (2, 0), (2, 0), (1, 1), (2, 1)] and len(rows) == 4
    kept = stored('tiny', tmp_path)
    assert (kept['about']['finished'], kept['about']['planned'], kept['about']['seeds']) == (4, 4, [0, 1])
    assert [(r['setting'], r['seed']) for r in tiny.rows(tmp_path)] == [('x', 0), ('x', 1), ('y', 0), ('y', 1)]
    tiny.go_on(tmp_path)
    assert len(made) == 5
    (tmp_path/'tiny.json').write_text('{"about": {}, "rows": [', encoding='utf-8')
    with pytest.raises(ValueError, match='is damaged: it holds no JSON'): tiny.rows(tmp_path)

def test_runs_made_otherwise_do_not_count(tiny, made, tmp_path):
    tiny.go_on(tmp_path)
    other = replace(tiny, fixed=dict(steps=2))
    assert other.finished(tmp_path) == [] and len(other.go_on(tmp_path)) == 4 and len(made) == 8
    text = (tmp_path/'tiny.jsonl').read_text(encoding='utf-8')
    (tmp_path/'tiny.jsonl').write_text(text.replace('"seed": 0', '"seed": ', 1), encoding='utf-8')
    with pytest.raises(ValueError, match='is damaged: it holds no JSON'): other.finished(tmp_path)

def test_stored_runs_are_those_of_the_studies():
    for name, study in EXPERIMENTS.items():
        rows = study.rows()
        if not rows or name in WATCHED: continue # those say it in an older form
        about = stored(f'lego_{name}')['about']
        assert (about['settings'], about['fixed']) == (study.lines, json.loads(json.dumps(study.fixed)))
        assert about['finished'] == len(rows) == len({(r['setting'], r['seed']) for r in rows}) <= about['planned'] == len(study)
        assert {r['setting'] for r in rows} <= set(study.lines) and f'proc-nb-lego {name}' in about['command']

def test_the_curriculum_keeps_rows_as_long_and_its_end_is_the_papers():
    stages = curriculum(CHAIN)
    assert {t.seq_len for t in stages} == {CHAIN.seq_len} and stages[-1] is CHAIN and CHAIN.n_chains == 1
    assert CHAIN.n_supervised < CHAIN.n_vars # the same rows beyond training: only the distance from the constant grows

def test_controls_keep_what_they_say_they_keep():
    task = SHORT
    practised, shuffled, equal = (start_reader('sort', task, std=.02) for _ in range(3))
    perturb(shuffled, 'shuffle', gen(), 'attn')
    equal_norm(equal, gen())
    for (n, p), q, r in zip(practised.named_parameters(), shuffled.parameters(), equal.parameters()):
        moved = 'attn' in n
        assert torch.equal(p.flatten().sort()[0], q.flatten().sort()[0]) and torch.allclose(p.norm(), r.norm(), rtol=1e-4)
        assert moved or torch.equal(p, r) and torch.equal(p, q)
    assert not torch.equal(practised.h[0].attn.c_attn.weight, equal.h[0].attn.c_attn.weight)

@pytest.mark.parametrize('kind', ['Bert', 'Albert'])
def test_a_pretrained_reader(tmp_path, kind):
    tr = pytest.importorskip('transformers')
    words = '[PAD] [UNK] [CLS] [SEP] [MASK] val not , = 1'.split() + list('abcdefghijklmnopqrstuvwxyz')
    (tmp_path/'vocab.txt').write_text('\n'.join(words) + '\n', encoding='utf-8')
    sizes = dict(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(7)
    if kind == 'Albert': sizes['embedding_size'] = 8
    getattr(tr, f'{kind}Model')(getattr(tr, f'{kind}Config')(**sizes)).save_pretrained(tmp_path)
    tr.BertTokenizer(str(tmp_path/'vocab.txt')).save_pretrained(tmp_path)
    task = tasks['lego'](n_vars=3, n_supervised=2)
    a, again, fresh = Pretrained(task, tmp_path), Pretrained(task, tmp_path), Pretrained(task, tmp_path, fresh=True)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in a.state_dict().items())
    assert not torch.equal(a.base.embeddings.word_embeddings.weight, fresh.base.embeddings.word_embeddings.weight)
    b = task.sample(4, gen())
    assert [words[i] for i in a.ids[b.tokens[0, [0, 2, 5, -1]]]] == ['[CLS]', '=', ',', '[SEP]']
    weight = next(p for n, p in a.base.named_parameters() if n.endswith('attention.self.query.weight' if kind == 'Bert' else 'attention.query.weight'))
    before = weight.clone()
    assert len(list(fit(a, task, steps=2, warmup=0, eval_every=2, eval_rows=20))) == 2
    assert not torch.equal(before, weight)
    assert all(0 <= x <= 1 for x in accuracy_by_place(a, task, 50)) and a(b.tokens, at=b.score_mask).shape == (b.score_mask.sum(), task.vocab_size)
    maps = a.attention(b.tokens)
    assert maps.shape == (2, 4, 2, task.seq_len, task.seq_len) and torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)
    far = mimic_kl(a, b.tokens).sum()
    mimic(a, task, steps=20, batch_size=8, lr=1e-2)
    assert mimic_kl(a, b.tokens).sum() < far
    models = {s: pretrained_reader(task, None, s, 1, tmp_path)[0].base.state_dict() for s in STARTS}
    at = 'embeddings.word_embeddings.weight'
    assert torch.equal(models['pretrained'][at].flatten().sort()[0], models['shuffled'][at].flatten().sort()[0])
    assert not any(torch.equal(models['pretrained'][at], models[s][at]) for s in STARTS[1:])
    with pytest.raises(ValueError, match="no word '2'"): Pretrained(tasks['lego']('D3'), tmp_path)
    torch.save(a.base.state_dict(), tmp_path/'pytorch_model.bin')
    (tmp_path/'model.safetensors').unlink()
    with pytest.raises(ValueError, match='pickled .bin files, which are never read'): Pretrained(task, tmp_path)
    assert Pretrained(task, tmp_path, fresh=True).head.out_features == task.vocab_size

@given(st.integers(0, 2**31), st.floats(.05, .95))
def test_hidden_words_are_asked_for_and_marks_never(seed, share):
    class Words:
        mask_token_id = 4
        def __len__(self): return 30
        def convert_ids_to_tokens(self, ids): return [f'w{i}' for i in ids]
    rows = torch.randint(30, (64, 16), generator=gen())
    b = HiddenWords(Words(), rows, share).sample(50, gen(seed))
    assert torch.equal(b.tokens[~b.loss_mask], b.targets[~b.loss_mask]) and (b.targets[b.loss_mask] >= 5).all()
    train = {tuple(r) for r in rows[torch.arange(64) % 16 != 0].tolist()}
    assert {tuple(r) for r in b.targets.tolist()} <= train
