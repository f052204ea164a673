"What is read or typed is never run, never believed beyond its size, and shown as the text it is."
import ast, base64, html.parser, re, sys
from pathlib import Path
import pytest, torch
from hypothesis import given, settings, strategies as st
from proc_nb.all import *
from proc_nb.files import load_tensors, save_tensors
from proc_nb.lego.task import Group
from proc_nb.tasks.core import Preset, Presets
from proc_nb.train.practice import Zoo
from proc_nb.viz.plots import legend
from proc_nb.viz.views import rule_page, token_chart
from proc_nb.language.model import load_lm
from proc_nb.lab.explorer import AttentionView, RuleExplorer
from proc_nb.lab.transfer_lab import TransferLab
from proc_nb.study.table import as_table
from proc_nb.study.jobs import Store

sys.path.insert(0, str(Path(__file__).parent/'campaigns'))
import fuzz

ROOT = Path(__file__).parent.parent

@pytest.fixture(scope='module', autouse=True)
def ready(): fuzz.prepare()

@pytest.mark.parametrize('name', fuzz.TARGETS)
@settings(max_examples=12)
@given(data=st.binary(min_size=1, max_size=80))
def test_any_input_is_answered_in_words(name, data): fuzz.tried(name, data)

@pytest.mark.parametrize('name', fuzz.TARGETS)
def test_every_target_lets_valid_input_in(name):
    def fine(k):
        try: return fuzz.TARGETS[name](fuzz.Unchanged(k)) is None
        except fuzz.WORDS: return False
    assert any(fine(k) for k in range(4))

@pytest.mark.full
@pytest.mark.parametrize('name', fuzz.TARGETS)
def test_more_of_any_input(name):
    import os
    row = fuzz.plain(name, float(os.environ.get('PROC_NB_FUZZ', 10)), seed=int(os.environ.get('PROC_NB_SEED', 0)))
    assert not row['findings'], row['findings']

# what the campaigns found, kept as it was found
FOUND = dict(checkpoint='7c187afd387f390327d2677d8655fcef68db58a6', factors='2c47f029e7ba57e34287e5dee8f8d117dd1f0cfd', zoo_sums='6aa0af61edb68ea540531a9e530f990f918e3517', tokenizer='9a0bcec6fe0025abae5ae664cfe1d7d551c29c67',
    rows='1afa27fac36d0d0f34939f6f4c87096e4e1a5d9e', lm_checkpoint='9251dc17803a20f6a2a9df652ae517c50ef1ab', table='20109d9fdefdc12f5d611d9ac8699be40f251c4a', answer='bd0092f21007d76271be90a0fb0d2a5b6d02cfbd',
    line='31a5cb7202d69f719f675aad41321e56878c1a97', words='d7ad521d1ccf6d600ca8439888aa03f29529d2bc')
LATER = [('rows', 'd4c421d828f7'), ('definition', 'e488cbabdca28814f8df98f2be50e9bba2dd19a3'), ('released', 'ff80ffe37f01000000'), ('released', 'f788ffca1e1e1e1e1e1e1e1e1e1e1e1e004d'), *(('corpus_folder', h) for h in (
    'fe7f00007fffffff7fff24', 'ff7fffff00ff2eff06', '417fffffffffffff00000000ffff', 'ff7ffaff01060000d19f06', '0a7f01f721fa40007f0006'))]
@pytest.mark.parametrize('name, data', [*FOUND.items(), *LATER])
def test_what_was_found(name, data): fuzz.tried(name, bytes.fromhex(data))

# ---- headers that claim more than there is

def test_a_header_that_claims_terabytes(tmp_path):
    model = GPT(GPTConfig())
    state = model.state_dict()
    for k in 'vocab_size', 'block_size', 'n_embd', 'n_layer':
        save_tensors(tmp_path/'m.safetensors', state, config={**vars(model.config), k: 2**40})
        with pytest.raises(ValueError, match='its header says'): load_model(tmp_path/'m.safetensors')
    (tmp_path/'s.safetensors').write_bytes((2**42).to_bytes(8, 'little') + b'{"weights":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}')
    with pytest.raises(ValueError, match='not a whole safetensors file'): load_model(tmp_path/'s.safetensors')
    from proc_nb.language.corpus import _memory
    with pytest.raises(ValueError, match='no token file'): _memory(tmp_path/'s.safetensors', 'weights')
    at = tmp_path/'lm/language/step-00000001'
    at.mkdir(parents=True)
    cfg = dict(vocab_size=257, block_size=16, n_layer=10**12, n_head=1, n_embd=4)
    (at/'run.json').write_text(__import__('json').dumps(dict(done=1, files={}, run=dict(config=cfg))), encoding='utf-8')
    with pytest.raises(ValueError, match='claims'): load_lm(tmp_path/'lm')

# ---- every bit counts

@settings(max_examples=60)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_bit_of_a_model_is_noticed(tmp_path_factory, at, bit):
    path = tmp_path_factory.getbasetemp()/'bits.safetensors'
    if not path.exists(): save_model(GPT(GPTConfig(vocab_size=12, block_size=11, n_embd=8, n_head=2)), path, task=Identity(5, n_symbols=9), steps=3)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    other = path.with_name('turned.safetensors')
    other.write_bytes(data)
    try: now = load_tensors(other)
    except ValueError: return
    tensors, meta = load_tensors(path) # what was changed is only how the sum is called or spaced
    assert meta == now[1] and all(torch.equal(v, now[0][k]) for k, v in tensors.items()) and len(tensors) == len(now[0])

@settings(max_examples=60)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_bit_of_a_row_is_noticed(tmp_path_factory, at, bit):
    store = Store(tmp_path_factory.getbasetemp()/'rows')
    store.path.unlink(missing_ok=True)
    rows = [dict(id='a', accuracy=.25, curve=[[3, .25]]), dict(id='b', accuracy=.5)]
    store.append(rows)
    data = bytearray(store.path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    store.path.write_bytes(data)
    with __import__('warnings').catch_warnings():
        __import__('warnings').simplefilter('ignore')
        try: found = [{k: v for k, v in r.items() if k in ('id', 'accuracy', 'curve')} for r in store.rows()]
        except ValueError: return
    assert found in (rows, rows[:1])

# ---- nothing that is read is run

def calls(path):
    for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(n, ast.Call): yield ast.unparse(n.func), {k.arg: ast.unparse(k.value) for k in n.keywords}, n.lineno
        if isinstance(n, (ast.Import, ast.ImportFrom)):
            for a in n.names: yield f'import {getattr(n, "module", None) or a.name}', {}, n.lineno

@pytest.mark.parametrize('path', sorted((ROOT/'proc_nb').rglob('*.py')), ids=lambda p: p.stem)
def test_no_door_for_code(path):
    for name, kwargs, line in calls(path):
        where = f'{path.name}:{line}: {name}'
        last = name.rsplit('.', 1)[-1]
        assert name not in ('eval', 'exec', 'compile', '__import__') or (path.stem, name) in ALLOWED, where
        assert not re.match(r'import (pickle|dill|cloudpickle|marshal|shelve|joblib|yaml)\b', name), where
        assert (last != 'system' or name == 'platform.system') and kwargs.get('shell') != 'True', where
        assert kwargs.get('trust_remote_code') in (None, 'False'), where
        if name == 'torch.load': assert kwargs.get('weights_only') == 'True', where
        if last in ('load', 'loads') and name.split('.')[0] in ('np', 'numpy', 'pd', 'pickle'): assert kwargs.get('allow_pickle') == 'False', where
ALLOWED = {('tokenizers', '__import__')} # a requirement by its name

# ---- what is shown is text

EVIL = '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "';alert(1)//", '</svg></div><iframe src=//x>', '&lt;b&gt;', '</title></style></textarea><b>'

class Tags(html.parser.HTMLParser):
    "Which elements and attributes a page has"
    def __init__(self, text):
        super().__init__()
        self.bad = []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        if tag in ('script', 'iframe', 'object', 'embed', 'link', 'base', 'form', 'b1'): self.bad.append(tag)
        if tag == 'img': self.bad += self.inside(dict(attrs).get('src') or '')
        self.bad += [k for k, v in attrs if k.startswith('on') or (v or '').strip().lower().startswith('javascript:')]

    @staticmethod
    def inside(src):
        "What is bad in an image: anything but one of our own pictures, whose markup is looked at as well"
        kind, _, data = src.partition('base64,')
        return Tags(base64.b64decode(data).decode()).bad if kind == 'data:image/svg+xml;' else ['img']

def harmless(shown):
    text = shown if isinstance(shown, str) else shown._repr_html_()
    assert not Tags(text).bad and '<img src=x' not in text, Tags(text).bad
    return text

class Evil(Identity):
    "Copies `<script>alert(1)</script>`"
    def __init__(self, length=5, n_symbols=4):
        super().__init__(length, n_symbols=n_symbols)
        self.token_names = [EVIL[i % len(EVIL)] + str(i) for i in range(len(self.token_names))]

@pytest.fixture(scope='module')
def evil(): return Evil()

@pytest.fixture(scope='module')
def net(evil):
    model = GPT(GPTConfig(vocab_size=evil.vocab_size, block_size=evil.seq_len))
    model.task = evil
    return model

def test_tokens_stay_text(evil, net, g):
    b = evil.sample(2, g)
    maps = net.maps(b.tokens[:1])[:, 0].detach()
    for shown in (evil, b, evil.show(b), rule_page(evil), attention_maps(maps, [evil.token_names[i] for i in b.tokens[0]], EVIL[0])): harmless(shown)
    assert '&lt;' in harmless(evil.show(b))
    harmless(show(token_chart(b))), harmless(show(heat(torch.eye(4), EVIL[:4], EVIL[0])))
    harmless(AttentionView(net).static())

def test_names_and_labels_stay_text(tmp_path):
    rows = [dict(setting=e, seed=0, step=s, accuracy=.5, loss=1.) for e in EVIL for s in (1, 2)]
    for shown in (legend(rows), show(curves(rows, EVIL[0]), EVIL[1]), as_table(EVIL, [EVIL, EVIL]), Group([[0, 1], [1, 0]], EVIL[:2]), Presets({EVIL[0]: Preset(EVIL[1], x=EVIL[2])})): harmless(shown)
    row = {**fuzz.V.row, **dict.fromkeys('test rule parts embed control practice rates'.split(), EVIL[0])}
    harmless(Table([row]))
    page = save_chart(curves(rows, '</script><script>alert(1)</script>'), tmp_path/'c')[1]
    assert '<script>alert(1)' not in Path(page).read_text(encoding='utf-8')
    svg = Html(show(curves(rows, EVIL[0])).markup).save(tmp_path/'p.html')
    harmless(svg.read_text(encoding='utf-8'))

def test_a_file_with_an_evil_name(tmp_path):
    path = tmp_path/'<img src=x onerror=alert(1)>.safetensors'
    path.write_bytes(b'no')
    lab = TransferLab(n_pairs=3, steps=2, batch_size=8, rule=str(path))
    lab.run()
    assert lab.state == 'failed'
    for w in (lab.message, lab.rule_note, lab.status, lab.carried): harmless(w.value)
    harmless(lab.static())
    z = Zoo(tmp_path)
    model = GPT(GPTConfig(vocab_size=12, block_size=11))
    model.task = None
    z.add(model, 'fine', steps=3, accuracy=.5)
    harmless(z)

def test_an_answer_that_is_markup():
    for name, e in exercises.items():
        for bad in (lambda *a, **k: EVIL[0], lambda *a, **k: [EVIL[1]]):
            harmless(e.check(bad, seed=0))
        harmless(e)
        break
    harmless(exercises)

def test_a_rule_explorer_of_evil(evil):
    ex = RuleExplorer('identity')
    ex.args.cls, ex.args.settings = Evil, dict(length=5, n_symbols=4)
    harmless(ex.static())
    ex._draw()
    harmless(ex.page.value)

def test_half_a_character_is_a_question_mark(tmp_path):
    from proc_nb.language.tokenizers import Bytes, train_bpe
    for tokenizer in Bytes(), train_bpe(['half a character'], 260): assert tokenizer.decode(tokenizer.encode('a\ud800b')) == 'a?b'

@pytest.mark.parametrize('last', ['{"text": ', '[1]', '{"text": {"a": 1}}', '{"words": "b"}'])
def test_a_spoilt_line_of_a_corpus_is_told_with_its_file(last, tmp_path):
    (tmp_path/'x.jsonl').write_text('{"text": "a line"}\n' * 60 + last + '\n', encoding='utf-8')
    with pytest.raises(ValueError, match=r'x\.jsonl, line 61'): corpus(str(tmp_path/'x.jsonl'), block_size=8, cache=tmp_path/'cache', progress=False)

def test_a_tokenizer_that_makes_its_library_panic_is_refused(tmp_path):
    import json
    from proc_nb.language.tokenizers import stored_tokenizer
    t = json.loads(fuzz.V.tokenizer)
    t['model']['continuing_subword_prefix'] = 'x' * 3000
    (tmp_path/'tokenizer.json').write_text(json.dumps(t), encoding='utf-8')
    with pytest.raises(ValueError, match='is no tokenizer of bytes'): stored_tokenizer(tmp_path)

def test_problems_that_fit_into_no_row_are_told_before_any_training(tmp_path):
    data = corpus('maths', block_size=4, n=400, cache=tmp_path, progress=False)
    from proc_nb.language.pretrain import Pretraining
    with pytest.raises(ValueError, match='No problem .* fits into a row of 4 tokens'): Pretraining(data, None, 'tiny', steps=1, run_dir=tmp_path/'run')

def test_a_vocabulary_beyond_measure_is_refused(tmp_path):
    with pytest.raises(ValueError, match='vocab_size must be a whole number from 257 to 1048576'): corpus('maths', 'bpe:777777777', 16, n=200, cache=tmp_path, progress=False)

@pytest.mark.parametrize('at', [0, 30, 60])
def test_a_null_among_documents_is_told(at, tmp_path):
    lines = ['{"text": "a line"}'] * 60
    lines.insert(at, ' null')
    (tmp_path/'x.jsonl').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    with pytest.raises(ValueError, match=rf'x\.jsonl, line {at + 1}: null is no document'): corpus(str(tmp_path/'x.jsonl'), block_size=8, cache=tmp_path/'cache', progress=False)

@pytest.mark.parametrize('data', [b'', b'\n\n', bytes.fromhex('df') + b'{"text": "a"}\n', b'{"text": "\xdf"}\n' * 40])
def test_a_file_that_no_reader_takes_is_told(data, tmp_path):
    (tmp_path/'x.jsonl').write_bytes(data)
    with pytest.raises(ValueError, match=r'x\.jsonl'): corpus(str(tmp_path/'x.jsonl'), block_size=8, cache=tmp_path/'cache', progress=False)
