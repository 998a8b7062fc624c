"""What is compiled or installed where the program runs: extensions, packages, environments."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import Confidence, Domain, LogRole, Rule, sign

RULES = (
    Rule(
        id="BUILD-LINK-001",
        title="The linker does not find a library",
        domain=Domain.LAUNCH,
        cause="an extension could not be linked on {where}: no library {library}",
        remedy="install its development package (CUDA's lie in CUDA_HOME/lib64: --env "
        "LIBRARY_PATH=/usr/local/cuda/lib64), then remove ~/.cache/torch_extensions",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign("cannot find -l", r"ld: cannot find -l(?P<library>[\w.+-]{1,60})"),
            sign(
                "ld: library not found for", r"library not found for -l(?P<library>[\w.+-]{1,60})"
            ),
        ),
        defaults={"library": "of that name"},
        references=("binutils: ld", "DeepSpeed"),
    ),
    Rule(
        id="BUILD-HEAD-001",
        title="A header is missing",
        domain=Domain.LAUNCH,
        cause="an extension could not be compiled on {where}: no header {header}",
        remedy="Python.h: python3-dev of that interpreter's version; cuda*.h: the CUDA toolkit; "
        "else the library's development package",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "fatal error: ",
                r"fatal error: (?P<header>[\w./+-]{1,120}): No such file or directory",
            ),
        ),
        defaults={"header": "of that name"},
        references=("gcc",),
    ),
    Rule(
        id="BUILD-NVCC-001",
        title="The CUDA toolkit is missing",
        domain=Domain.LAUNCH,
        cause="{who} wants to compile for CUDA and finds no toolkit ({detail})",
        remedy="install the CUDA toolkit of torch's CUDA version and set CUDA_HOME, or a wheel "
        "with the extension already built",
        confidence=Confidence.CERTAIN,
        weight=83,
        signs=(
            sign(
                "CUDA_HOME",
                r"(?P<detail>CUDA_HOME (?:environment variable is not set|does not exist|is not "
                r"set))",
            ),
            sign("MissingCUDAException", r"(?P<detail>MissingCUDAException)"),
            sign(
                "No such file or directory",
                r"No such file or directory: '?(?P<detail>[\w./-]{0,120}\bnvcc)'?",
            ),
            sign(
                "nvcc",
                r"(?P<detail>nvcc: (?:command )?not found|[Cc]ould not find nvcc|nvcc was not found"
                r"|No nvcc)",
            ),
        ),
        defaults={"detail": "no nvcc"},
        references=("torch.utils.cpp_extension", "DeepSpeed"),
    ),
    Rule(
        id="BUILD-TOOL-001",
        title="A compiler or build tool is missing",
        domain=Domain.LAUNCH,
        cause="{who} wants to compile and lacks {tool}",
        remedy="apt install build-essential ninja-build (or conda: gcc, gxx, ninja), on every node",
        confidence=Confidence.CERTAIN,
        weight=83,
        signs=(
            sign("Failed to find C compiler", r"(?P<tool>C compiler)"),
            sign("Ninja is required", r"(?P<tool>Ninja) is required to load C\+\+ extensions"),
            sign(
                "No such file or directory",
                r"(?:command '|directory: ')(?P<tool>[\w./-]{0,60}(?:gcc|g\+\+|c\+\+|cc1plus|cmake"
                r"|ninja|git|make))'",
            ),
            sign(
                "not found",
                r"(?:^|: )(?P<tool>gcc|g\+\+|c\+\+|cc|cmake|ninja|make|rustc|cargo): (?:command )?"
                r"not found",
            ),
            sign("No working C++ compiler", r"(?P<tool>C\+\+ compiler)"),
            sign("InvalidCxxCompiler"),
        ),
        defaults={"tool": "a compiler"},
        references=("triton", "torch.utils.cpp_extension"),
    ),
    Rule(
        id="BUILD-ARCH-001",
        title="nvcc does not fit the GPU or the compiler",
        domain=Domain.LAUNCH,
        cause="nvcc on {where} is of the wrong version: {detail}",
        remedy="a CUDA toolkit that knows the GPU (TORCH_CUDA_ARCH_LIST limits what is built), and "
        "a gcc that it supports (--env CC=gcc-11 --env CXX=g++-11)",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign("nvcc fatal", r"nvcc fatal {1,6}: (?P<detail>.{1,120})"),
            sign("unsupported GNU version", r"(?P<detail>unsupported GNU version.{0,80})"),
            sign(
                "unsupported Microsoft Visual", r"(?P<detail>unsupported Microsoft Visual.{0,80})"
            ),
            sign(
                "Unknown CUDA arch",
                r"(?P<detail>Unknown CUDA arch \([\w.]{1,20}\) or GPU not supported)",
            ),
        ),
        defaults={"detail": "not supported"},
        references=("nvcc",),
    ),
    Rule(
        id="BUILD-CUDA-001",
        title="The toolkit's CUDA is not torch's",
        domain=Domain.LAUNCH,
        cause="the CUDA toolkit on {where} is of another version than torch was built with "
        "({detail})",
        remedy="the toolkit of torch.version.cuda in CUDA_HOME, or a torch wheel of the toolkit's "
        "version (DS_SKIP_CUDA_CHECK=1 only within one major version)",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "mismatches the version that was used to compile",
                r"(?P<detail>CUDA version \([\d.]{1,8}\) mismatches the version that was used to "
                r"compile.{0,20}\([\d.]{1,8}\))",
            ),
            sign(
                "does not match the version torch was compiled with",
                r"(?P<detail>CUDA version [\d.]{1,8} does not match the version torch was compiled "
                r"with [\d.]{1,8})",
            ),
            sign("CUDAMismatchException", r"(?P<detail>CUDAMismatchException)"),
        ),
        defaults={"detail": "versions differ"},
        references=("torch.utils.cpp_extension", "DeepSpeed"),
    ),
    Rule(
        id="BUILD-ABI-001",
        title="An extension was built for another torch",
        domain=Domain.LAUNCH,
        cause="the extension {library} on {where} was built for another version of torch than is "
        "installed",
        remedy="install the build for this torch, CUDA and Python, or build it again: "
        "pip install --no-build-isolation --no-cache-dir --force-reinstall PACKAGE",
        weight=78,
        signs=(
            sign(
                "undefined symbol",
                r"(?P<library>[\w.+-]{1,160}\.so[.\d]{0,12}): undefined symbol: "
                r"_ZNK?\d{0,2}(?:c10|2at|5torch|3c10|4cuda|6caffe2)",
            ),
            # Its operators are missing, as it warned of when it was imported.
            sign(
                "No operator found for `memory_efficient_attention",
                around=r"xFormers wasn't build with CUDA support|operator wasn't built",
                library="xformers",
            ),
        ),
        defaults={"library": "of a package"},
        references=("torch.utils.cpp_extension",),
    ),
    Rule(
        id="BUILD-EXT-001",
        title="An extension could not be built",
        domain=Domain.LAUNCH,
        cause="an extension could not be built on {where} ({detail}); the compiler's own error "
        "stands "
        "above, or in the log of the rank that built it",
        remedy="look for 'error:' above that line; remove ~/.cache/torch_extensions before the "
        "next try",
        role=LogRole.VAGUE,
        weight=40,
        signs=(
            sign("Error building extension", r"Error building extension ['\"](?P<detail>\w{1,60})"),
            sign("ninja", r"CalledProcessError: Command .{0,8}(?P<detail>ninja)\b"),
            sign("ninja: build stopped", r"(?P<detail>ninja: build stopped)"),
            sign("subprocess-exited-with-error"),
            sign("Unable to JIT load the", r"JIT load the (?P<detail>\w{1,60}) op\b"),
            sign(
                "torch_extensions",
                r"torch_extensions/(?P<detail>[\w./-]{1,120}): cannot open shared object file",
            ),
            sign("returned 1 exit status", r"(?P<detail>collect2|ld) ?.{0,20}returned 1 exit"),
        ),
        defaults={"detail": "build"},
        consequence="could not build an extension",
        references=("torch.utils.cpp_extension",),
    ),
    Rule(
        id="PIP-NET-001",
        title="The installer finds no version of a package at all",
        domain=Domain.LAUNCH,
        cause="the installer on {where} finds no version of {package} at all: it cannot reach its "
        "index, or the name is wrong",
        remedy="the lines above it (proxy, name, certificate); pip download PACKAGE there; or "
        "have environments built: python: {{workload: true}}",
        role=LogRole.VAGUE,
        confidence=Confidence.POSSIBLE,
        weight=73,
        signs=(
            sign(
                "(from versions: none)",
                r"satisfies the requirement (?P<package>[^ ]{1,80}) \(from versions: none\)",
            ),
            sign(
                "No matching distribution found",
                r"distribution found for (?P<package>[^ ]{1,80})",
                around=r"\(from versions: none\)",
            ),
        ),
        defaults={"package": "a package"},
        consequence="could not install a package",
        references=("pip",),
    ),
    Rule(
        id="PIP-RES-001",
        title="A package cannot be installed",
        domain=Domain.LAUNCH,
        cause="the installer on {where} finds no package that fits: {detail}",
        remedy="does this Python version have that package (python3 --version), and does the node "
        "reach an index; or have environments built: python: {{workload: true}}",
        confidence=Confidence.CERTAIN,
        weight=72,
        signs=(
            sign(
                "Could not find a version that satisfies",
                r"(?P<detail>Could not find a version that satisfies the requirement [^ ]{1,80})",
            ),
            sign(
                "No matching distribution found",
                r"(?P<detail>No matching distribution found for [^ ]{1,80})",
            ),
            sign("ResolutionImpossible", r"(?P<detail>ResolutionImpossible)"),
            sign(
                "No solution found when resolving dependencies",
                r"(?P<detail>No solution found when resolving dependencies)",
            ),
            sign("PackagesNotFoundError", r"(?P<detail>PackagesNotFoundError)"),
            sign("UnsatisfiableError", r"(?P<detail>UnsatisfiableError)"),
        ),
        defaults={"detail": "a requirement"},
        references=("pip", "conda", "uv"),
    ),
    Rule(
        id="ENV-CONDA-001",
        title="The conda environment is not there",
        domain=Domain.LAUNCH,
        cause="{who} could not activate its conda environment ({detail})",
        remedy="conda env list on that node; in scripts source CONDA/etc/profile.d/conda.sh before "
        "conda activate; or name its interpreter by path (python: of the inventory)",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("EnvironmentNameNotFound", r"(?P<detail>EnvironmentNameNotFound.{0,80})"),
            sign("EnvironmentLocationNotFound", r"(?P<detail>EnvironmentLocationNotFound.{0,80})"),
            sign("Run 'conda init' before"),
            sign("shell has not been properly configured"),
        ),
        defaults={"detail": "conda init is missing in this shell"},
        references=("conda",),
    ),
    Rule(
        id="PY-IMP-001",
        title="Versions of packages do not fit together",
        domain=Domain.LAUNCH,
        cause="packages on {where} do not fit together: {detail}",
        remedy="install the versions that were tested together; python -m pip check; the same "
        "environment on every node",
        weight=66,
        signs=(
            sign(
                "cannot import name",
                r"(?P<detail>cannot import name '[\w.]{1,80}' from '[\w.]{1,80}')",
            ),
            sign(
                "compiled using NumPy 1.x cannot be run in",
                r"(?P<detail>module that was compiled using NumPy 1\.x cannot be run in NumPy "
                r"[\d.]{1,8})",
                confidence=Confidence.POSSIBLE,
            ),
            sign(
                "Numpy is not available",
                r"RuntimeError: Numpy is not available",
                detail="torch cannot use the NumPy that is installed",
            ),
            sign("numpy.dtype size changed", r"(?P<detail>numpy\.dtype size changed)"),
            sign(
                " is required for a normal functioning",
                r"Error: (?P<detail>.{1,80} is required for a normal functioning)",
            ),
            sign(
                "has no attribute",
                r"AttributeError: (?P<detail>module '[\w.]{1,80}' has no attribute '\w{1,60}')",
            ),
            sign("requires the following packages that were not found"),
            sign("operator torchvision::nms does not exist"),
        ),
        defaults={"detail": "see the line"},
        references=("pip",),
    ),
    Rule(
        id="PY-SHADOW-001",
        title="A file of the project hides a package",
        domain=Domain.PROGRAM,
        cause="a file or folder of the project on {where} has the name of a package and "
        "is imported instead ({module})",
        remedy="rename it, and remove its __pycache__",
        confidence=Confidence.LIKELY,
        weight=74,
        signs=(
            sign(
                "partially initialized module",
                r"partially initialized module '(?P<module>[\w.]{1,80})'",
            ),
        ),
        defaults={"module": "a module"},
        references=("Python",),
    ),
)
