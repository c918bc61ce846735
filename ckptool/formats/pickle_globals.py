"""Which classes and functions a pickle may name without alarm.

Nothing is run by ckptool whatever the answer. The answer says what would happen elsewhere, in a plain `pickle.load`:
"harmless" names only rebuild data; "dangerous" names run code, import, read or write files or talk to a network, or
hand out whatever could; any other name is "unknown", because nobody can list all code of all packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ckptool.checkpoint import GlobalUse, Risk
from ckptool.formats.objects import Call, Global, Persistent
from ckptool.spec import DTYPES

MAX_GLOBALS = 100_000
_NAME_PARTS = 8  # no module that is listed here is deeper
_WORST: list[Risk] = ["harmless", "unknown", "dangerous"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BUILTINS = """
    bool bytearray bytes complex dict float frozenset int list long object range set slice str tuple unicode xrange
    NoneType Ellipsis NotImplemented
"""

# module -> names that only rebuild data
_HARMLESS: dict[str, str] = {
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "_codecs": "encode",
    "argparse": "Namespace",
    "collections": "OrderedDict defaultdict Counter deque ChainMap UserDict UserList UserString",
    "copyreg": "_reconstructor __newobj__ __newobj_ex__",
    "copy_reg": "_reconstructor __newobj__ __newobj_ex__",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "types": "SimpleNamespace NoneType EllipsisType",
    "uuid": "UUID SafeUUID",
    # plain dicts with attributes: Lightning's hyper-parameters
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    # numpy: scalars, arrays, random states
    "numpy": """
        dtype ndarray bool bool_ int8 int16 int32 int64 intp uint8 uint16 uint32 uint64 uintp longlong ulonglong float16
        float32 float64 longdouble complex64 complex128 str_ bytes_ datetime64 timedelta64
    """,
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "numpy.random._pickle": "__randomstate_ctor __generator_ctor __bit_generator_ctor",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "numpy.random._philox": "Philox",
    "numpy.random._sfc64": "SFC64",
    # torch: tensors, storages, plain values
    "torch": """
        Size Tensor device dtype Generator finfo iinfo strided sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc
        contiguous_format channels_last channels_last_3d preserve_format per_tensor_affine per_channel_affine
        per_tensor_symmetric per_channel_symmetric per_channel_affine_float_qparams
        half float double cfloat cdouble short int long
    """,
    "torch._C": "Size device dtype Generator layout memory_format",
    "torch._tensor": "_rebuild_from_type_v2 Tensor",
    "torch.jit._pickle": """
        build_boollist build_doublelist build_intlist build_tensor_from_id build_tensorlist restore_type_tag
    """,
    "torch.nn": "Parameter Buffer",
    "torch.nn.parameter": "Parameter Buffer UninitializedParameter UninitializedBuffer",
    "torch.nn.functional": "relu relu6 gelu silu mish elu leaky_relu tanh sigmoid softmax log_softmax hardswish",
    "torch.serialization": "_get_layout",
    "torch.storage": "TypedStorage UntypedStorage _TypedStorage _UntypedStorage",
    "torch._utils": "_element_size",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo _StoragePrefix",
    "torch.distributed.checkpoint.metadata": "_MEM_FORMAT_ENCODING",
    "torch.torch_version": "TorchVersion",
}

# torch's own classes, by name alone: modules, optimizers, schedulers, the headers of distributed checkpoints
_CLASSES_OF = (
    "torch.nn.modules",
    "torch.nn.quantized",
    "torch.ao.nn",
    "torch.optim",
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.tensor",
    "torch.distributed._tensor",
    "numpy.dtypes",
)
_CLASS_NAME = re.compile(r"_?[A-Z]\w*", re.ASCII)
_TORCH_STORAGE = re.compile(r"torch(?:\.cuda|\.xpu|\.mps)?\.[A-Z]\w*Storage", re.ASCII)
_TORCH_REBUILD = re.compile(r"torch\._utils\._rebuild_\w+", re.ASCII)

# modules and names that run code, or reach what does; each covers what lies inside it
_DANGEROUS = _words(
    """
    _aix_support _asyncio _bootsubprocess _ctypes _frozen_importlib _frozen_importlib_external
    _imp _io _operator.attrgetter _operator.itemgetter _operator.methodcaller _osx_support _pickle _posixshmem
    _posixsubprocess _pyrepl _socket _sqlite3 _ssl _thread _winapi _xxsubinterpreters aifc antigravity asyncio asyncore
    atexit bdb bz2 cProfile cPickle cgi code codecs.open codeop commands compileall concurrent contextlib.ExitStack
    ctypes curses dbm dill distutils doctest ensurepip faulthandler fileinput ftplib functools.partial
    functools.partialmethod functools.reduce gc gzip http httplib idlelib imaplib imp importlib inspect io joblib
    lib2to3 linecache logging.config logging.handlers lzma mailbox mailcap marshal mmap modulefinder msvcrt
    multiprocess multiprocessing netrc nntplib nt ntpath operator.attrgetter operator.call operator.itemgetter
    operator.methodcaller os pdb pickle pickletools pip pipes pkg_resources pkgutil platform popen2
    poplib posix posixpath posixfile profile pstats pty py_compile pydoc pyexpat readline requests resource rlcompleter
    runpy sched select selectors setuptools shelve shutil signal site sitecustomize smtpd smtplib socket socketserver
    sqlite3 ssl subprocess symtable sys sysconfig syslog tarfile telnetlib tempfile test threading timeit
    tkinter trace traceback turtle types.BuiltinFunctionType types.CodeType types.FunctionType types.LambdaType
    types.MethodType types.ModuleType types.resolve_bases types.new_class unittest urllib urllib2 urllib3 usercustomize
    uuid._get_command_stdout uuid._popen venv warnings weakref.finalize webbrowser winreg wsgiref xml xmlrpc zipapp
    zipfile zipimport
    aiohttp cffi cloudpickle.loads httpx jsonpickle pandas.read_pickle pandas.eval pandas.io paramiko psutil
    numpy.ctypeslib numpy.distutils numpy.f2py numpy.fromfile numpy.genfromtxt numpy.lib numpy.load numpy.loadtxt
    numpy.memmap numpy.save numpy.savetxt numpy.testing numpy.core.memmap numpy._core.memmap
    torch._C._jit_load torch._dynamo torch._functorch torch._inductor torch._numpy torch.backends torch.classes
    torch.distributed.elastic torch.distributed.launch torch.distributed.launcher torch.distributed.rpc
    torch.distributed.run torch.export torch.fx torch.hub torch.jit torch.multiprocessing torch.onnx torch.ops
    torch.package torch.profiler torch.serialization torch.storage._load_from_bytes torch.testing
    torch.utils._config_module torch.utils.bottleneck torch.utils.collect_env torch.utils.cpp_extension
    torch.utils.data.datapipes torch.utils.model_zoo torch.save
    """
)
# of the builtins these; an exception or a type that is not listed anywhere is unknown
_DANGEROUS_BUILTINS = _words(
    """
    __build_class__ __import__ __loader__ apply breakpoint classmethod coerce compile copyright credits delattr dir
    eval exec execfile exit file filter getattr globals hasattr help input intern license locals map memoryview open
    print property quit raw_input reduce reload setattr staticmethod super type vars
    """
)
_LOADER = re.compile(r"(?:torch|numpy|pandas|joblib|dill|cloudpickle)\b.*load", re.ASCII | re.IGNORECASE)
_INSIDE = re.compile(r"__(?!newobj__|newobj_ex__|(?:randomstate|generator|bit_generator)_ctor)\w+__")

_EXACT = frozenset(f"{module}.{name}" for module, names in _HARMLESS.items() for name in names.split())
_EXACT |= {f"torch.{name}" for name in DTYPES}


def risk_of(module: str, name: str) -> Risk:
    """What naming ``module.name`` would mean in a plain `pickle.load`.

    Example:
        >>> risk_of("torch._utils", "_rebuild_tensor_v2"), risk_of("posix", "system"), risk_of("my.model", "Net")
        ('harmless', 'dangerous', 'unknown')
        >>> risk_of("torch.storage", "_load_from_bytes")  # torch's own, and it unpickles what it is given
        'dangerous'
    """
    full = f"{module}.{name}"
    if full in _EXACT or _TORCH_STORAGE.fullmatch(full) or _TORCH_REBUILD.fullmatch(full):
        return "harmless"
    parts = full.split(".", _NAME_PARTS)[:_NAME_PARTS]
    if any(".".join(parts[:length]) in _DANGEROUS for length in range(1, len(parts) + 1)):
        return "dangerous"
    if parts[0] in ("builtins", "__builtin__"):
        return "dangerous" if parts[1] in _DANGEROUS_BUILTINS or len(parts) > 2 else "unknown"
    if _LOADER.match(full) or _INSIDE.search(name):
        return "dangerous"
    if _CLASS_NAME.fullmatch(name) and any(module == room or module.startswith(room + ".") for room in _CLASSES_OF):
        return "harmless"
    return "unknown"


class GlobalLog:
    """The globals of one pickle, in order of first appearance."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], None] = {}

    def saw(self, module: str, name: str) -> bool:
        """Note one; False if there are more than any checkpoint has."""
        self.seen[module, name] = None
        return len(self.seen) <= MAX_GLOBALS

    def uses(self, calls: Iterable[Call]) -> tuple[GlobalUse, ...]:
        """Each global once, with how often `calls` would call it."""
        counts: dict[tuple[str, str], list[int]] = {}
        for call in calls:
            fn = _callee(call.fn)
            if type(fn) is Global:
                arguments = len(call.args) if type(call.args) is tuple else 0
                counts.setdefault((fn.module, fn.name), [0, arguments])[0] += 1
        found = (
            GlobalUse(f"{module}.{name}", risk_of(module, name), *counts.get((module, name), (0, 0)))
            for module, name in self.seen
        )
        return merge_globals(found)


def _callee(fn: object) -> object:
    """The class that legacy torch files hide in a persistent id: ``("module", class, source file, source)``."""
    if type(fn) is Persistent and type(fn.pid) is tuple and len(fn.pid) == 4:
        kind, cls, *_ = fn.pid
        return cls if type(kind) is str and kind == "module" else fn
    return fn


def merge_globals(*groups: Iterable[GlobalUse]) -> tuple[GlobalUse, ...]:
    """The globals of several pickles as one list: each name once, calls added up, the worst risk kept.

    Example:
        >>> merge_globals([GlobalUse("a.b", "unknown", 1, 2)], [GlobalUse("a.b", "unknown", 3, 4)])
        (GlobalUse(name='a.b', risk='unknown', calls=4, arguments=2),)
    """
    merged: dict[str, GlobalUse] = {}
    for use in (use for group in groups for use in group):
        before = merged.get(use.name)
        if before is not None:
            risk = max(before.risk, use.risk, key=_WORST.index)
            arguments = before.arguments if before.calls else use.arguments
            use = GlobalUse(use.name, risk, before.calls + use.calls, arguments)
        merged[use.name] = use
    return tuple(merged.values())
