"A rule that a learner wrote, with the faults that such rules have: told in words before anything is trained, not as an error from deep inside or not at all."
import pytest, torch
from proc_nb.all import *

class Mirror(Task):
    "Four symbols, a bar, and the same backwards"
    def __init__(self, n_symbols=20): self.pad, self.seq_len, self.token_names = n_symbols + 1, 9, [*map(str, range(n_symbols)), '|', '.']
    def symbols(self, n, generator): return torch.randint(self.pad - 1, (n, 4), generator=generator, device=generator.device)
    def rows(self, n, generator):
        x = self.symbols(n, generator)
        tokens = torch.cat([x, torch.full_like(x[:, :1], self.pad - 1), x.flip(1)], 1)
        return tokens, self.asked(torch.arange(9)).expand_as(tokens)
    def asked(self, place): return (place >= 4) & (place < 8)
    def valid(self, tokens): return (tokens == tokens.flip(1)).all(1)

class TokenBeyond(Mirror):
    def symbols(self, n, generator): return torch.randint(self.pad + 5, (n, 4), generator=generator)
class NegativeToken(Mirror):
    def symbols(self, n, generator): return Mirror.symbols(self, n, generator) - 1
class NumbersAsMask(Mirror):
    def asked(self, place): return Mirror.asked(self, place).long()
class NothingAsked(Mirror):
    def asked(self, place): return place < 0
class AfterTheEnd(Mirror):
    def asked(self, place): return place >= 4
class Decimals(Mirror):
    def rows(self, n, generator): return torch.rand(n, 9, generator=generator), self.asked(torch.arange(9)).expand(n, 9)
class TokensAlone(Mirror):
    def rows(self, n, generator): return Mirror.rows(self, n, generator)[0]
class TooLong(Mirror):
    def rows(self, n, generator): return tuple(torch.cat([o, o], 1) for o in Mirror.rows(self, n, generator))
class TooFew(Mirror):
    def rows(self, n, generator): return Mirror.rows(self, n // 2, generator)
class NoPad(Mirror):
    def __init__(self):
        Mirror.__init__(self)
        self.pad = 22
    def rows(self, n, generator): return torch.ones(n, 9, dtype=torch.int64), self.asked(torch.arange(9)).expand(n, 9)
class OtherWay(Mirror):
    def valid(self, tokens): return (tokens[:, :4] == tokens[:, 5:]).all(1)
class ListAsVerdict(Mirror):
    def valid(self, tokens): return [True] * len(tokens)

FAULTS = {TokenBeyond: 'tokens must lie in 0..21', NegativeToken: 'but -1 occurs', NumbersAsMask: 'mask must be True or False', NothingAsked: 'mask is empty',
    AfterTheEnd: 'after the last token', Decimals: 'must be int64', TokensAlone: 'tokens and mask', TooLong: 'not 18', TooFew: 'were asked for and', NoPad: 'pad must lie in',
    OtherWay: 'draws rows that its own valid refuses', ListAsVerdict: 'must give True or False for each row'}

def net(task): return GPT(GPTConfig(vocab_size=22, block_size=9, n_embd=8, n_head=2))

@pytest.mark.parametrize('kind', FAULTS, ids=lambda k: k.__name__)
def test_it_is_told_before_training(kind):
    for train in (lambda: fit(net(kind()), kind(), 2), lambda: fit_many([net(kind())], kind(), 2)):
        with pytest.raises(ValueError, match=FAULTS[kind]): next(train())

def test_a_right_one_is_trained(): assert len(list(fit(net(Mirror()), Mirror(), 2, 8, eval_rows=20))) == 2

def test_faults_in_other_rules_than_ones_own():
    "None of the package's tasks has any of these faults"
    for name, cls in tasks.items():
        task = cls()
        assert task.batch(32, torch.Generator().manual_seed(1)).loss_mask.any(), name
        task.self_check()

class Plain(Task):
    token_names, pad, seq_len = ['.', 'a', 'b', 'c'], 0, 8
    def rows(self, n, generator):
        tokens = torch.randint(1, 4, (n, 8), generator=generator)
        return tokens, (torch.arange(8) < 7).expand(n, 8)

class Handing(Mirror):
    def __init__(self, wide=3, **kwargs):
        super().__init__(**kwargs)
        self.wide = wide

class Listed(Task):
    def __init__(self, *args): self.args = args

def test_a_task_without_init_can_be_made_again_and_shown():
    task = Plain()
    assert task.settings == {} and repr(Plain(**task.settings)) == 'Plain()' and '<svg' in task._repr_html_()
    with pytest.raises(KeyError, match="no argument of Plain 'n'"): Plain(n=3)

def test_arguments_that_are_handed_on_are_remembered():
    task = Handing(n_symbols=7)
    assert task.settings == dict(wide=3, n_symbols=7) and Handing(**task.settings).vocab_size == 9

def test_nameless_arguments_cannot_be_written_down():
    with pytest.raises(ValueError, match='Give its arguments names'): Listed(3)
