"The assignments: student notebooks show nothing they should not, model answers get full marks, wrong ones do not."
import importlib.util, json, re, zipfile
from pathlib import Path
import pytest

pytest.importorskip('otter', reason='needs otter-grader: the extra course')
HERE = Path(__file__).parent.parent/'tutorials'/'assignments'
spec = importlib.util.spec_from_file_location('make_assignments', HERE/'make.py')
maker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(maker)
POINTS = {'1_dyck': 10, '2_attention': 11, '3_transfer': 8, '4_rule': 9}

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('made')
    assert list(maker.make(out, 'our class')) == list(POINTS)
    return out

def book(path): return json.loads(path.read_text(encoding='utf-8'))
def text(path, kinds=('code', 'markdown', 'raw')): return '\n'.join(''.join(c['source']) for c in book(path)['cells'] if c['cell_type'] in kinds)

def put(made, name, tmp_path, *answers):
    "The model answers with some cells replaced: each answer stands for the cell that begins as it does, up to the first bracket or ="
    nb = book(made/'autograder'/f'{name}_answers.ipynb')
    for a in answers:
        head = re.match(r'[\w ]+', a[a.index('def '):] if a[0] == '@' else a)[0]
        cell = [c for c in nb['cells'] if re.search(f'^{re.escape(head)}', ''.join(c['source']), re.M) and c['cell_type'] == 'code']
        assert len(cell) == 1, head
        cell[0]['source'] = a
    (tmp_path/'answer.ipynb').write_text(json.dumps(nb))
    return maker.points(tmp_path/'answer.ipynb', made/'autograder'/f'{name}.zip')

@pytest.mark.parametrize('name', POINTS)
def test_student_notebook(made, name):
    mine, answers = text(made/'student'/f'{name}.ipynb'), text(made/'autograder'/f'{name}_answers.ipynb')
    for word in ('SOLUTION', 'HIDDEN', 'BEGIN TEST', 'assert', 'One point'): assert word not in mine
    assert '%pip install -q proc-nb' in mine and '...' in mine and 'Points:**' in mine and 'Time:**' in mine
    assert 'otter' not in mine, 'a student needs no grader'
    blocks = re.findall('# BEGIN SOLUTION.*?# END SOLUTION', text(HERE/'_masters'/f'{name}.ipynb', ['code']), re.S)
    solved = [l.strip() for b in blocks for l in b.splitlines()[1:-1] if len(l.strip()) > 25]
    assert len(solved) > 3 and not [l for l in solved if l in mine] and all(l in answers for l in solved)
    meta = json.dumps(book(made/'student'/f'{name}.ipynb')['metadata'])
    assert 'hidden": true' not in meta and str(maker.hidden_seed('our class', name)) not in meta

@pytest.mark.parametrize('name', POINTS)
def test_the_secret_draws_the_hidden_tests(made, name):
    with zipfile.ZipFile(made/'autograder'/f'{name}.zip') as z: tests = '\n'.join(z.read(n).decode() for n in z.namelist() if n.endswith('.py'))
    assert 'HIDDEN_SEED' not in tests and str(maker.hidden_seed('our class', name)) in tests
    assert len({maker.hidden_seed(s, n) for s in ('', 'a', 'b') for n in POINTS}) == 12

def test_masters_are_clean():
    for p in (HERE/'_masters').glob('*.ipynb'):
        nb = book(p)
        assert all(c['id'] and not c.get('outputs') for c in nb['cells']) and set(nb['metadata']) <= {'kernelspec', 'language_info'}

FULL = pytest.mark.full
@pytest.mark.parametrize('name', ['1_dyck', *(pytest.param(n, marks=FULL) for n in list(POINTS)[1:])])
def test_model_answer(made, name, tmp_path): assert put(made, name, tmp_path)['total'] == (POINTS[name], POINTS[name])

@pytest.mark.parametrize('name', ['2_attention', *(pytest.param(n, marks=FULL) for n in POINTS if n != '2_attention')])
def test_blank(made, name): assert maker.points(made/'student'/f'{name}.ipynb', made/'autograder'/f'{name}.zip')['total'] == (0, POINTS[name])

NO_GENERATOR = '''def dyck_rows(n, k, seq_len, generator):
    return tasks['dyck'](k=k, seq_len=seq_len).rows(n, torch.Generator().manual_seed(int(torch.rand(1) * 1e6)))[0]'''
ONLY_NESTED = '''def dyck_rows(n, k, seq_len, generator):
    x = torch.randint(k, (n, seq_len // 2), generator=generator)
    return torch.cat([x, x.flip(1) + k], 1)'''
HARD_CODED = '''def dyck_rows(n, k, seq_len, generator): return torch.tensor([[0, k] * (seq_len // 2)] * n)'''
ROW_BY_ROW = '''def dyck_rows(n, k, seq_len, generator):
    coins, kinds = torch.rand(n, seq_len, generator=generator).tolist(), torch.randint(k, (n, seq_len), generator=generator).tolist()
    out = []
    for c, s in zip(coins, kinds):
        held, row = [], []
        for t in range(seq_len):
            if not held or (c[t] < .5 and len(held) < seq_len - t):
                held.append(s[t])
                row.append(s[t])
            else: row.append(held.pop() + k)
        out.append(torch.tensor(row))
    return torch.stack(out)'''
BY_COUNTING = '''def is_dyck(rows, k): return (rows < k).sum(1) * 2 == rows.shape[1]'''
LATE_MASK = '''def attention_maps(q, k): return (q @ k.mT / q.shape[-1] ** .5).softmax(-1).tril()'''
NO_ROOT = '''def attention_maps(q, k):
    T = q.shape[-2]
    return (q @ k.mT).masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1)'''
OVERFLOW = '''def attention_maps(q, k):
    e = (q @ k.mT / q.shape[-1] ** .5).exp().tril()
    return e / e.sum(-1, keepdim=True)'''
PLAIN_VIEW = '''class MyAttention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.n_head = cfg.n_head
        self.c_attn, self.c_proj = nn.Linear(cfg.n_embd, 3 * cfg.n_embd), nn.Linear(cfg.n_embd, cfg.n_embd)
    def forward(self, x, at=None):
        B, T, C = x.shape
        q, k, v = (o.reshape(B, self.n_head, T, -1) for o in self.c_attn(x).split(C, dim=-1))
        return self.c_proj((attention_maps(q, k) @ v).reshape(B, T, C))'''
IN_PLACE = '''def with_mine(model):
    for block in model.h:
        new = MyAttention(model.config)
        new.load_state_dict(block.attn.state_dict())
        block.attn = new
    return model'''
RAISES = '''def with_mine(model): raise NotImplementedError('later')'''
COPIES_FIRST = '''@torch.no_grad()
def carry(source, target, parts):
    new, n = dict(target.named_parameters()), 0
    for name, p in source.named_parameters():
        if part_of(name) in parts:
            rows = min(len(p), len(new[name])) if name == 'wpe.weight' else len(p)
            if p[:rows].shape != new[name][:rows].shape: raise ValueError('shapes')
            new[name][:rows] = p[:rows]
            n += p[:rows].numel()
    if set(parts) - {'attn', 'mlp', 'ln', 'tok', 'pos'}: raise ValueError('part')
    return n'''
BY_TRANSFER = '''def carry(source, target, parts): return sum(transfer(source, target, parts).moved.values())'''
INVENTED = '''results = {'random weights': [.9, .9], 'attention and positions': [.95, .95], 'MLPs': [.2, .1]}'''
NO_RULE = '''class MyRule(Task):
    "Random tokens"
    def __init__(self): self.token_names, self.pad, self.seq_len = [*'0123456789', '|', '=', '·'], 12, 12
    def rows(self, n, generator):
        x = torch.randint(10, (n, 12), generator=generator)
        return x, (torch.arange(12) < 11).expand(n, -1)
    def valid(self, tokens): return torch.ones(len(tokens), dtype=torch.bool)'''
IS_ADDITION = '''class MyRule(type(tasks['reversed_addition'](digits=3))):
    def __init__(self): super().__init__(3)'''
COPIED_CHECK = '''def is_dyck(rows, k): return tasks['dyck'](k=k, seq_len=rows.shape[1]).check(rows)'''
COPIED_ROWS = '''def dyck_rows(n, k, seq_len, generator): return words(k, seq_len).rows(n, generator)[0]
def words(k, seq_len): return tasks['dyck'](k=k, seq_len=seq_len)'''
COPIED_LAYER = '''class MyAttention(type(GPT(GPTConfig()).h[0].attn)): pass'''
CASES = [('1_dyck', [NO_GENERATOR], {'sampler': 6}), ('1_dyck', [ONLY_NESTED], {'sampler': 5}), ('1_dyck', [HARD_CODED], {'sampler': 4}), ('1_dyck', [ROW_BY_ROW], {'sampler': 6}),
    ('1_dyck', [BY_COUNTING], {'checker': 1}), ('2_attention', [LATE_MASK], {'maps': 3, 'layer': 4}), ('2_attention', [NO_ROOT], {'maps': 3, 'layer': 2}), ('2_attention', [OVERFLOW], {'maps': 3}),
    ('2_attention', [PLAIN_VIEW], {'layer': 2, 'surgery': 1}), ('2_attention', [IN_PLACE], {'surgery': 0}), ('2_attention', [RAISES], {'surgery': 0}), ('3_transfer', [COPIES_FIRST], {'carry': 4}), ('3_transfer', [BY_TRANSFER], {'carry': 4}),
    ('3_transfer', [INVENTED], {'results': 1}), ('4_rule', [NO_RULE], {'rule': 4, 'teaches': 0}), ('4_rule', [IS_ADDITION], {'rule': 4}),
    ('1_dyck', [COPIED_CHECK, COPIED_ROWS], {'checker': 2, 'sampler': 5}), ('2_attention', [COPIED_LAYER], {'layer': 2})]
NAMES = 'no_generator only_nested hard_coded row_by_row by_counting late_mask no_root overflow plain_view in_place raises copies_first by_transfer invented no_rule is_addition copied_functions copied_layer'.split()

@pytest.mark.parametrize('name, answers, most', [pytest.param(*c, id=n, marks=() if n == 'hard_coded' else FULL) for n, c in zip(NAMES, CASES)])
def test_wrong_answer(made, name, answers, most, tmp_path):
    got = put(made, name, tmp_path, *answers)
    for question, limit in most.items(): assert got[question][0] <= limit < got[question][1], got
    assert got['total'][0] < POINTS[name]

def test_what_cannot_be_graded(made, tmp_path):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'broken.ipynb').write_text('{')
    maker.grade(made/'autograder'/'1_dyck.zip', tmp_path/'in', tmp_path/'grades.csv')
    assert 'broken.ipynb' in (tmp_path/'grades.csv').read_text() and 'cannot be graded' in (tmp_path/'grades.csv').read_text()

ENDLESS = '''def is_dyck(rows, k):
    while True: pass'''

@FULL
def test_endless(made, tmp_path, monkeypatch):
    monkeypatch.setattr(maker.points, '__defaults__', (30,))
    with pytest.raises(TimeoutError, match='never ends'): put(made, '1_dyck', tmp_path, ENDLESS)

DIES = '''def is_dyck(rows, k):
    import os
    os.kill(os.getpid(), 9)'''

@FULL
def test_a_process_that_dies(made, tmp_path):
    "An answer that takes the grader down with it is reported, and the next notebook is graded"
    (tmp_path/'in').mkdir()
    try: put(made, '1_dyck', tmp_path, DIES)
    except ValueError as e: assert 'cannot be graded' in str(e) and 'answer.ipynb' in str(e)
    else: raise AssertionError('graded, though its process died')
    (tmp_path/'answer.ipynb').rename(tmp_path/'in'/'a_dies.ipynb')
    (tmp_path/'in'/'b_blank.ipynb').write_bytes((made/'student'/'1_dyck.ipynb').read_bytes())
    maker.grade(made/'autograder'/'1_dyck.zip', tmp_path/'in', tmp_path/'grades.csv')
    lines = (tmp_path/'grades.csv').read_text().splitlines()
    assert len(lines) == 3 and 'cannot be graded' in lines[1] and 'b_blank' in lines[2]
