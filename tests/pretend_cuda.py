"""A pretend GPU: tensors of the CPU, some of which count as being on 'cuda:0' or 'cuda:1'. It does what a GPU does and refuses what a GPU refuses:
tensors of two devices do not mix, a generator draws on its own device, reading a number waits for the device (and is counted), and a CUDA graph is a
tape of the operations on one device's stream that is replayed on the same tensors, without Python. Nothing on the way to a tape may wait, draw or
come from the host. What only hardware can tell (speed, memory, rounding) it does not tell."""
import collections, contextlib, threading, traceback
import torch, torch._dynamo
from importlib import import_module
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device('cpu')
WAITS = set('_local_scalar_dense nonzero masked_select _unique2 unique_consecutive unique_dim equal is_nonzero item bincount linalg_eigh _linalg_eigh _linalg_svd linalg_qr'.split())
INDEXING = set('index index_put index_put_ _index_put_impl_ _unsafe_index_put'.split())
VIEWS = set('detach alias _reshape_alias empty empty_like new_empty empty_strided new_empty_strided set_ _unsafe_view lift_fresh'.split())
MOST_ROWS = 65_535
_device, _is_cuda, _is_cpu, _Generator = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__, torch.Tensor.is_cpu.__get__, torch.Generator

def tensors(*x): return [t for t in tree_leaves(x) if isinstance(t, torch.Tensor)]
def as_device(x): return torch.device(x) if isinstance(x, (str, int)) else x
def full(device): return torch.device('cuda', device.index or 0) if device.type == 'cuda' else device

def here():
    "The line of the package that is being run"
    for f in reversed(traceback.extract_stack(limit=60)):
        if '/proc_nb/' in f.filename: return f'{f.filename.split("/")[-1]}:{f.lineno} {f.line[:80]}'
    return '?'

class Generator(_Generator):
    "A generator of a device"
    def __new__(cls, device='cpu'):
        self = _Generator.__new__(cls, 'cpu')
        self.where = full(as_device(device))
        return self
    def __init__(self, device='cpu'): pass
    device = property(lambda self: self.where)

class Gpu:
    "What happens on the pretend devices; `with Gpu() as gpu:`"
    tags = {} # storage -> where it is; kept from one to the next, as what a module has put on a GPU stays there
    def __init__(self,
        largest=None, # Numbers that a tensor may have before the memory is full
        devices=2 # How many there are
    ):
        self.largest, self.devices, self.current = largest, devices, 0
        self.local = threading.local()
        self.launches, self.replays, self.captures, self.waits = 0, 0, 0, collections.Counter()
    @property
    def waited(self): return sum(self.waits.values())
    def reset(self):
        self.launches = self.replays = self.captures = 0
        self.waits.clear()

    # ---- which tensors are where
    def where(self, t):
        "The pretend device of `t`, or None"
        with torch._C.DisableTorchFunction():
            if _device(t).type != 'cpu': return None
            key = t.untyped_storage()._cdata
            ref, device = self.tags.get(key, (None, None))
            if ref is None or not ref.expired(): return device
            del self.tags[key]
    def put(self, t, device):
        with torch._C.DisableTorchFunction():
            if _device(t).type != 'cpu': return t
            storage = t.untyped_storage()
            self.tags.pop(storage._cdata, None)
            if device.type == 'cuda': self.tags[storage._cdata] = StorageWeakRef(storage), full(device)
        if self.largest and device.type == 'cuda' and t.numel() > self.largest: raise torch.OutOfMemoryError('CUDA out of memory. [pretend]')
        return t
    def wait(self, why):
        if self.tape is not None: raise RuntimeError(f'CUDA error: operation not permitted when stream is capturing [pretend: {why} at {here()}]')
        self.waits[f'{why} at {here()}'] += 1

    # ---- what is going on in this thread
    @property
    def tape(self): return getattr(self.local, 'tape', None)
    @property
    def inside(self): return getattr(self.local, 'inside', None)
    @contextlib.contextmanager
    def during(self, **kw):
        was = {k: getattr(self.local, k, None) for k in kw}
        vars(self.local).update(kw)
        try: yield
        finally: vars(self.local).update(was)

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        for owner, name, new in self._api(): self._swap(owner, name, new)
        self.stack.enter_context(Functions(self))
        self.stack.enter_context(Operations(self))
        return self
    def __exit__(self, *exc): return self.stack.__exit__(*exc)
    def _swap(self, owner, name, new):
        was = getattr(owner, name)
        setattr(owner, name, new)
        self.stack.callback(setattr, owner, name, was)

    # ---- torch.cuda
    def _api(self):
        c, gpu, real = torch.cuda, self, import_module('torch.utils._foreach_utils')._group_tensors_by_device_and_dtype
        class Stream:
            def __init__(self, device=None): self.device = gpu.current if device is None else device
            def wait_stream(self, other): pass
            def synchronize(self): pass
        class CUDAGraph:
            def __init__(self): self.ops = []
            def replay(self):
                gpu.replays += 1
                with torch.no_grad(), torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
                    for f, args, kwargs, outs in self.ops:
                        for old, new in zip(outs, tree_leaves(f(*args, **kwargs))):
                            if isinstance(old, torch.Tensor) and old is not new and old.numel() and old.data_ptr() != new.data_ptr(): old.copy_(new)
        @contextlib.contextmanager
        def graph(graph, pool=None, stream=None, capture_error_mode='global'):
            assert capture_error_mode == 'thread_local', 'other threads may not use the GPU while this one records'
            gpu.captures += 1
            with gpu.during(tape=graph.ops, tape_device=gpu.current if stream is None else stream.device): yield
        @contextlib.contextmanager
        def device(d):
            was, gpu.current = gpu.current, full(as_device(f'cuda:{d}' if isinstance(d, int) else d)).index
            try: yield
            finally: gpu.current = was
        @contextlib.contextmanager
        def stream(s): yield
        def grouped(lists, with_indices=False):
            found = real(lists, with_indices)
            return {(gpu.where(next(t for l in v[0] for t in l if t is not None)) or d, kind): v for (d, kind), v in found.items()}
        was_run = threading.Thread.run
        def run(thread):
            with Functions(gpu), Operations(gpu): was_run(thread)
        for owner in 'torch.utils._foreach_utils', 'torch.nn.utils.clip_grad', 'torch.optim.optimizer': yield import_module(owner), '_group_tensors_by_device_and_dtype', grouped
        yield from ((c, f.__name__, f) for f in (Stream, CUDAGraph, graph, device, stream))
        yield from ((c, name, f) for name, f in dict(is_available=lambda: True, synchronize=lambda *a: None, current_stream=lambda *a: Stream(), device_count=lambda: self.devices,
            current_device=lambda: self.current, get_device_name=lambda *a: 'Pretend GPU', mem_get_info=lambda *a: (14 * 2**30, 15 * 2**30),
            is_current_stream_capturing=lambda: self.tape is not None, empty_cache=lambda: None).items())
        yield torch, 'Generator', Generator
        yield threading.Thread, 'run', run

class Functions(TorchFunctionMode):
    "What Python asks of PyTorch: devices, copies between them, and new tensors"
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu
    def __torch_function__(self, func, types, args=(), kwargs=None):
        gpu, kwargs, name = self.gpu, dict(kwargs or {}), getattr(func, '__name__', '')
        if func == _device: return gpu.where(args[0]) or _device(args[0])
        if func == _is_cuda: return gpu.where(args[0]) is not None
        if func == _is_cpu: return gpu.where(args[0]) is None and _device(args[0]).type == 'cpu'
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        on = None if first is None else gpu.where(first)
        if name in ('to', 'cpu', 'cuda') and first is not None: return self.moved(func, first, args[1:], kwargs)
        if on and name == 'tolist': gpu.wait('tolist')
        if on and name == 'numpy': raise TypeError("can't convert cuda:0 device type tensor to numpy. [pretend]")
        if on and name == 'scaled_dot_product_attention' and len(first) > MOST_ROWS: raise RuntimeError('CUDA error: invalid configuration argument [pretend]')
        if on and name == 'new_tensor':
            gpu.wait('new_tensor from the host')
            return gpu.put(func(*args, **kwargs), on)
        device = as_device(kwargs.get('device'))
        self.check_generator(kwargs.get('generator'), device, on, name)
        if device is not None and device.type == 'cuda': return self.made(func, args, kwargs, full(device), name)
        there = None if device is not None else next(filter(None, map(gpu.where, tensors(args, kwargs))), None)
        with gpu.during(inside=there): return func(*args, **kwargs)
    def made(self, func, args, kwargs, device, name):
        "A new tensor on a GPU"
        if device.index >= self.gpu.devices: raise RuntimeError('CUDA error: invalid device ordinal [pretend]')
        if name in ('tensor', 'as_tensor', 'from_numpy'): self.gpu.wait(f'torch.{name} from the host')
        with self.gpu.during(inside=device): out = func(*args, **{**kwargs, 'device': CPU})
        for t in tensors(out): self.gpu.put(t, device)
        return out
    def check_generator(self, generator, device, on, name):
        if generator is None: return
        want = full(device) if device is not None else on if on is not None and name != 'randint' else CPU
        have = getattr(generator, 'where', CPU)
        if want != have: raise RuntimeError(f"Expected a '{want}' device type for generator but found '{have}' [pretend: {name} at {here()}]")
        if self.gpu.tape is not None and have != CPU: raise RuntimeError('CUDA error: a generator that the graph does not know draws while it is recorded [pretend]')
    def moved(self, func, t, args, kwargs):
        "`t.to(...)`"
        gpu, want, rest = self.gpu, {'cpu': CPU, 'cuda': torch.device('cuda', 0)}.get(func.__name__), []
        for a in args:
            if isinstance(a, torch.device) or isinstance(a, str): want = as_device(a)
            elif isinstance(a, torch.Tensor): want, rest = gpu.where(a) or _device(a), [a.dtype]
            elif isinstance(a, torch.dtype): rest = [a]
        if kwargs.get('device') is not None: want = as_device(kwargs['device'])
        if kwargs.get('dtype') is not None: rest = [kwargs['dtype']]
        if want is None or want.type == 'meta' or _device(t).type == 'meta': return func(t, *args, **kwargs)
        have, want = gpu.where(t) or CPU, full(want)
        def cast(x): return torch.Tensor.to(x, rest[0]) if rest else x
        if have == want: return cast(t)
        gpu.wait(f'copy from {have.type} to {want.type}')
        with torch.utils._python_dispatch._disable_current_modes(): out = cast(torch.Tensor.clone(t) if t.requires_grad and torch.is_grad_enabled() else t.detach().clone())
        return gpu.put(out, want)

class Operations(TorchDispatchMode):
    "What the devices do: one operation after the other"
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu, kwargs, name, given = self.gpu, kwargs or {}, func.overloadpacket.__name__, tensors(args, kwargs)
        places = {id(t): gpu.where(t) for t in given}
        device = next((d for d in places.values() if d), None if given else gpu.inside)
        if device is not None and given: self.check(name, args, given, places, kwargs)
        out = func(*args, **kwargs)
        if device is None: return out
        for t in tensors(out):
            if not any(t is g for g in given): gpu.put(t, device)
        if not (func.is_view or name in VIEWS): gpu.launches += 1
        if gpu.tape is not None and gpu.local.tape_device == device.index: gpu.tape.append((func, args, kwargs, tree_leaves(out)))
        return out
    def check(self, name, args, given, places, kwargs):
        "Waits, and devices that do not mix"
        gpu, here_ = self.gpu, [t for t in given if places[id(t)] is None]
        if name in INDEXING and places[id(args[0])]:
            index = tensors(args[1])
            if any(places[id(i)] is None for i in index): gpu.wait('an index from the host')
            if any(i.dtype in (torch.bool, torch.uint8) for i in index): gpu.wait('an index by a mask')
            here_ = [t for t in here_ if not any(t is i for i in index)]
        if name == 'copy_':
            if len({places[id(t)] for t in given}) > 1: gpu.wait('copy_ between devices')
        elif name not in ('_to_copy', 'set_', 'detach') and (any(t.dim() for t in here_) or len({d for d in places.values() if d}) > 1):
            raise RuntimeError(f'Expected all tensors to be on the same device [pretend: {name} at {here()}]')
        if name in WAITS or (name == 'repeat_interleave' and kwargs.get('output_size') is None): gpu.wait(name)
