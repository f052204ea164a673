"Files that are broken, foreign or dangerous are refused in words, and a run that was cut goes on as if it had not been."
import pickle, pytest, torch
from hypothesis import given, strategies as st
from proc_nb.all import *
from proc_nb.files import load_tensors, parse_json
from proc_nb.commands import practise as practise_cli
from proc_nb.results import RESULTS

@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp('m')/'model.safetensors'
    save_model(GPT(GPTConfig()), path, task=tasks['haystack']())
    return path

@given(cut=st.integers(0, 60_000))
def test_a_file_cut_short(saved, cut):
    data = saved.read_bytes()
    path = saved.with_name('cut.safetensors')
    path.write_bytes(data[:min(cut, len(data) - 1)])
    with pytest.raises(ValueError, match='not a whole safetensors file'): load_model(path)

@given(at=st.integers(0, 400), bit=st.integers(0, 7))
def test_a_bit_flipped_in_the_header(saved, at, bit):
    data = bytearray(saved.read_bytes())
    data[at] ^= 1 << bit
    path = saved.with_name('flipped.safetensors')
    path.write_bytes(data)
    try: assert isinstance(load_model(path), GPT)
    except (ValueError, KeyError): pass

class Trap:
    def __reduce__(self): return (pytest.fail, ('a pickle was executed',))

def test_a_pickle_is_not_opened(tmp_path):
    for name, write in ('p.pkl', pickle.dump), ('p.pt', torch.save):
        with open(tmp_path/name, 'wb') as f: write(Trap(), f)
        with pytest.raises(ValueError, match='never read'): load_model(tmp_path/name)

def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file'): load_model(tmp_path/'none.safetensors')

def small(): return tasks['identity'](length=5, n_symbols=9)
def fresh(width=16): return GPT(GPTConfig(vocab_size=12, block_size=11, n_embd=width, dropout=.1))

@given(stop=st.integers(1, 24), seed=st.integers(0, 2**31))
def test_resumed_equals_uninterrupted(tmp_path_factory, stop, seed):
    kw = dict(seed=seed, schedule='cosine', decay_steps=40, warmup=5, eval_every=10, eval_rows=20, lr_scale=dict(tok=5))
    whole, cut = fresh(), fresh()
    list(fit(whole, small(), steps=25, **kw))
    d = tmp_path_factory.mktemp('run')
    records = fit(cut, small(), steps=25, run_dir=d, **kw)
    for _ in range(stop): next(records)
    records.close()
    again = fresh()
    last = list(fit(again, small(), steps=25, run_dir=d, resume=True, **kw))
    assert len(last) == 25 - stop
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())

@pytest.mark.parametrize('when', ['before', 'after', 'evaluating'])
@pytest.mark.parametrize('many', [False, True])
def test_an_interrupt_within_a_step_spoils_nothing(tmp_path, when, many, monkeypatch):
    import proc_nb.train.ensemble as E, proc_nb.train.loop as T
    kind, module = (E.ManyRun, E) if many else (T.Run, T)
    kw = dict(warmup=2, eval_every=5, eval_rows=20, **(dict(seeds=[4]) if many else dict(seed=4)))
    def new(): return [GPT(GPTConfig(vocab_size=12, block_size=11), seed=1)]
    def go(models, **more): return list((fit_many if many else fit)(models if many else models[0], small(), 12, 8, **kw, **more))
    whole, cut = new(), new()
    go(whole)
    real, judge = kind.update, module.evaluate_many if many else module.evaluate
    def stops(self, batch):
        if self.done == 8 and when == 'before': raise KeyboardInterrupt
        out = real(self, batch)
        if self.done == 8 and when == 'after': raise KeyboardInterrupt
        return out
    def looks(*args, **kwargs):
        if when == 'evaluating': raise KeyboardInterrupt
        return judge(*args, **kwargs)
    monkeypatch.setattr(kind, 'update', stops)
    monkeypatch.setattr(module, 'evaluate_many' if many else 'evaluate', looks)
    with pytest.raises(KeyboardInterrupt): go(cut, run_dir=tmp_path)
    monkeypatch.undo()
    again = new()
    recs = go(again, run_dir=tmp_path, resume=True)
    assert all(torch.equal(v, again[0].state_dict()[k]) for k, v in whole[0].state_dict().items())
    assert recs[0].step == (1 if when == 'evaluating' else 6) and recs[-1].step == 12
    if many: assert [e['step'] for e in load_tensors(tmp_path/'checkpoint.safetensors')[1]['evals']] == [5, 10, 12]

def test_a_checkpoint_of_another_shape(tmp_path):
    list(fit(fresh(), small(), steps=2, run_dir=tmp_path))
    with pytest.raises(ValueError, match='another shape'): fit(fresh(32), small(), steps=3, run_dir=tmp_path, resume=True)

def test_a_practice_that_died_before_it_wrote_its_network_writes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    practise_cli('identity', steps=20)
    net = tmp_path/'_runs/practise/identity/model.safetensors'
    whole = load_tensors(net)[0]
    net.unlink()
    practise_cli('identity', steps=20, resume=True)
    assert 'finished already' not in capsys.readouterr().out
    again = load_tensors(net)[0]
    assert whole.keys() == again.keys() and all(torch.equal(whole[k], again[k]) for k in whole)
    practise_cli('identity', steps=20, resume=True)
    assert 'finished already' in capsys.readouterr().out

@pytest.mark.parametrize('file', sorted(RESULTS.iterdir()), ids=lambda p: p.name)
def test_results_of_the_package_are_whole(file):
    for text in file.read_bytes().splitlines() if file.suffix == '.jsonl' else [file.read_bytes()]: assert parse_json(text, file)

def test_a_stored_study_that_is_cut_is_refused(tmp_path):
    (tmp_path/'tour.jsonl').write_bytes((RESULTS/'tour.jsonl').read_bytes()[:-40])
    with pytest.raises(ValueError, match='tour.jsonl, line .* is damaged'): stored_table('tour', tmp_path)

def test_a_table_that_is_saved_is_read_again(tmp_path):
    stored_table('tour').save(tmp_path/'tour.jsonl')
    assert stored_table('tour', tmp_path) == stored_table('tour')

def test_no_temporary_file_stays(tmp_path):
    list(fit(fresh(), small(), steps=3, run_dir=tmp_path, eval_every=1))
    assert [p.name for p in tmp_path.iterdir()] == ['checkpoint.safetensors']
