"A run whose weights are spread over processes by PyTorch's own FSDP2 on the CPU (Accelerate shards on accelerators only); started by test_language.py."
import contextlib, os, sys
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from proc_nb.files import *
from proc_nb.language.tokenizers import *
from proc_nb.language.sources import *
from proc_nb.language.corpus import *
from proc_nb.tasks.controls import *
from proc_nb.language.model import *
from proc_nb.language.plan import *
from proc_nb.language.lm_run import *
from proc_nb.language.pretrain import *
from proc_nb.language.cli import *

class Engine:
    "What `LMRun` asks of an engine"
    device = torch.device('cpu')
    def __init__(self): self.num_processes,self.process_index,self.is_main_process = dist.get_world_size(),dist.get_rank(),dist.get_rank() == 0
    def prepare(self, model, opt):
        at = {id(p): n for n,p in model.named_parameters()}
        groups = [dict(g, params=[at[id(p)] for p in g['params']]) for g in opt.param_groups]
        for b in [*model.h, model]: fully_shard(b, mesh=init_device_mesh('cpu', (self.num_processes,)))
        named = dict(model.named_parameters())
        return model,torch.optim.AdamW([dict(g, params=[named[n] for n in g['params']]) for g in groups])
    def reduce(self, x, how):
        dist.all_reduce(x := x.clone())
        return x
    def no_sync(self, model): return contextlib.nullcontext()
    def backward(self, loss): loss.backward()
    def clip_grad_norm_(self, params, clip): return torch.nn.utils.clip_grad_norm_(params, clip)
    def wait_for_everyone(self): dist.barrier()

def run(seed=0): return LMRun(language_model(lm_config('tiny', data.vocab_size, 32), seed=seed), data, Engine(), batch_size=8)

dist.init_process_group('gloo')
data = corpus('maths', block_size=32, n=3000)
first = run()
assert all(p.full_tensor().numel() > p.to_local().numel() for p in first.model.parameters())
losses = [first.step() for _ in range(5)]
first.save(sys.argv[1])
again = run(seed=5)
again.load(checkpoints(sys.argv[1])[-1])
rest = [first.step() for _ in range(3)]
assert [again.step() for _ in range(3)] == rest
if dist.get_rank() == 0: print(*losses, *rest, flush=True)
dist.barrier()
dist.destroy_process_group()
os._exit(0) # gloo's threads may outlive the interpreter's end and abort it
