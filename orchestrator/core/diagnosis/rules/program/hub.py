"""Models and data from the hub."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import Advice, Confidence, Domain, Rule, sign

RULES = (
    Rule(
        id="HF-AUTH-001",
        title="The model is gated",
        domain=Domain.LAUNCH,
        cause="{who} may not read {repo} from the model hub: it is gated or private",
        remedy="accept the licence on the model's page, then --env HF_TOKEN (taken from here and "
        "kept secret)",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign("GatedRepoError"),
            sign(
                "You are trying to access a gated repo",
                r"(?P<repo>a gated repo)",
            ),
            sign(
                "Cannot access gated repo",
                r"gated repo for url https?://[^/ ]{1,80}/(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})",
            ),
            sign(
                "is not a local folder and is not a valid model identifier",
                r"(?P<repo>(?![./~])[\w./-]{1,120}) is not a local folder",
                confidence=Confidence.LIKELY,
            ),
            sign("Access to model", r"Access to model (?P<repo>\S{1,120}) is restricted"),
            sign(
                "401 Client Error",
                r"401 Client Error.{0,60}huggingface\.co/(?P<repo>[\w./-]{1,120})",
            ),
            sign("RepositoryNotFoundError", confidence=Confidence.LIKELY),
        ),
        defaults={"repo": "the model"},
        references=("huggingface_hub",),
    ),
    Rule(
        id="HF-NET-001",
        title="The model hub cannot be reached",
        domain=Domain.FABRIC,
        cause="{who} cannot reach the model hub",
        remedy="download once where there is a network, copy the cache to the same HF_HOME on "
        "every node, and set HF_HUB_OFFLINE=1; or HTTPS_PROXY",
        advice=Advice.GIVE_UP,
        weight=78,
        signs=(
            sign("couldn't connect to 'https://"),
            sign("LocalEntryNotFoundError"),
            sign(
                "huggingface.co",
                r"host='(?:[\w-]{1,40}\.){0,3}huggingface\.co', port=443\): (?:Max retries exceeded"
                r"|Read timed out)",
            ),
            sign("on the Hub (", r"Couldn't reach .{1,120} on the Hub \("),
            sign("Server Error", r"5\d\d Server Error.{0,120}huggingface\.co"),
            sign("xethub.hf.co", r"host='[\w.-]{1,60}\.hf\.co', port=443\)"),
            sign("Failed to resolve", r"Failed to resolve '[\w.-]{0,60}huggingface\.co'"),
            sign("OfflineModeIsEnabled"),
            sign("CAS service error"),
        ),
        references=("huggingface_hub",),
    ),
    Rule(
        id="HF-RATE-001",
        title="The model hub limits requests",
        domain=Domain.FABRIC,
        cause="the model hub refuses {who}: too many requests",
        remedy="download on one rank only, --env HF_TOKEN, and HF_HUB_OFFLINE=1 once the cache is "
        "complete",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("429 Client Error", r"429 Client Error.{0,120}(?:huggingface|hf)\.co"),
            sign("Too Many Requests", r"huggingface\.co.{0,160}Too Many Requests"),
        ),
        references=("huggingface_hub",),
    ),
    Rule(
        id="HF-PATH-001",
        title="The model's folder is not there",
        domain=Domain.LAUNCH,
        cause="{who} does not find the folder {path}, and takes its name for one of the model hub",
        remedy="the path as the node sees it (mounts of the container); orchestrate exec -C "
        "CLUSTER "
        "-- ls PATH shows it on every node",
        confidence=Confidence.CERTAIN,
        weight=83,
        signs=(
            sign(
                "Repo id must",
                r"Repo id must .{1,160}: '(?P<path>[^']{1,200})'",
            ),
            sign(
                "Invalid repository ID or local directory",
                r"local directory specified: '(?P<path>[^']{1,200})'",
            ),
            sign(
                "Incorrect path_or_model_id",
                r"Incorrect path_or_model_id: '(?P<path>[^']{1,200})'",
            ),
            sign(
                "is not a local folder and is not a valid model identifier",
                r"(?<![\w-])(?P<path>[./~][\w./-]{1,160}) is not a local folder",
            ),
            sign(
                "does not appear to have a file named",
                r"(?<![\w-])(?P<path>[./~][\w./-]{1,160}) does not appear to have a file named",
            ),
            sign(
                "no file named",
                r"no file named .{1,160} found in directory (?P<path>[./~][\w./-]{1,160}?)\.?$",
            ),
        ),
        defaults={"path": "of the model"},
        references=("transformers",),
    ),
    Rule(
        id="HF-FILE-001",
        title="The model lacks a file",
        domain=Domain.LAUNCH,
        cause="the model {repo} that {who} loads lacks a file that is needed",
        remedy="another revision or format of it, or the base model that an adapter belongs to",
        confidence=Confidence.CERTAIN,
        weight=77,
        signs=(
            sign("EntryNotFoundError", r"EntryNotFoundError(?!.{0,20}Local)"),
            sign(
                "does not appear to have a file named",
                r"(?P<repo>[\w./-]{1,120}) does not appear to have a file named",
            ),
            sign("no file named", r"Error no file named .{1,160} found in"),
            sign(
                "Cannot find any model weights with",
                r"any model weights with [`'](?P<repo>[^'`]{1,120})",
            ),
        ),
        defaults={"repo": "it names"},
        references=("transformers", "vLLM"),
    ),
    Rule(
        id="DATA-AUTH-001",
        title="The object store refuses access",
        domain=Domain.LAUNCH,
        cause="the object store refuses {who} ({detail})",
        remedy="--env with the store's credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID, "
        "GOOGLE_APPLICATION_CREDENTIALS), kept secret; their rights and their expiry",
        confidence=Confidence.CERTAIN,
        weight=78,
        signs=(
            sign("NoCredentialsError", r"(?P<detail>NoCredentialsError)"),
            sign("Unable to locate credentials", r"(?P<detail>Unable to locate credentials)"),
            sign("AccessDenied", r"(?P<detail>AccessDenied)\b"),
            sign("when calling the ", r"(?P<detail>\(403\) when calling the \w{1,60})"),
            sign("SignatureDoesNotMatch", r"(?P<detail>SignatureDoesNotMatch)"),
            sign("InvalidAccessKeyId", r"(?P<detail>InvalidAccessKeyId)"),
            sign("ExpiredToken", r"(?P<detail>ExpiredToken)"),
            sign("DefaultCredentialsError", r"(?P<detail>DefaultCredentialsError)"),
            sign("does not have storage.objects"),
        ),
        defaults={"detail": "access denied"},
        references=("boto3", "google-auth"),
    ),
    Rule(
        id="DATA-FILE-001",
        title="A data file is damaged or incomplete",
        domain=Domain.HOST,
        cause="a data file that {who} reads is damaged or incomplete ({detail})",
        remedy="its size and checksum against the source; an interrupted download, copy or "
        "preprocessing: make it again",
        confidence=Confidence.CERTAIN,
        weight=79,
        signs=(
            sign(
                "mmap length is greater than file size",
                r"(?P<detail>mmap length is greater than file size)",
            ),
            sign("tarfile.ReadError", r"ReadError: (?P<detail>(?!Caught).{1,160})"),
            sign("ended before the end-of-stream", r"(?P<detail>Compressed file ended before)"),
            sign("zlib.error", r"(?P<detail>Error -[35] while decompressing.{0,80})"),
            sign("nexpected EOF in archive", r"^tar: (?P<detail>Unexpected EOF in archive)"),
            sign("stdin: ", r"^(?P<detail>(?:gzip|xz|zstd): stdin: unexpected end of file)"),
            sign("BadZipFile", r"(?P<detail>BadZipFile: .{1,80})"),
            sign("Parquet magic bytes not found", r"(?P<detail>Parquet magic bytes not found)"),
            sign("image file is truncated", r"(?P<detail>image file is truncated.{0,60})"),
            sign("cannot identify image file", r"(?P<detail>cannot identify image file .{1,120})"),
        ),
        defaults={"detail": "see the line"},
        references=("Megatron-LM: indexed dataset", "Python: tarfile, zipfile", "Parquet"),
    ),
    Rule(
        id="DATA-FORM-001",
        title="A record of the data has another form than expected",
        domain=Domain.PROGRAM,
        cause="{who} read a record that does not have the form of the others ({detail})",
        remedy="look at that record; one type for each column in every file",
        confidence=Confidence.CERTAIN,
        weight=77,
        signs=(
            sign("JSON parse error", r"ArrowInvalid: (?P<detail>JSON parse error: .{1,160})"),
            sign(
                "ArrowInvalid: ",
                r"ArrowInvalid: (?P<detail>(?:CSV parse|Could not convert).{1,160})",
            ),
            sign("CastError", r"(?P<detail>CastError: .{1,160})"),
            # Where lines of data are read; answers of servers are parsed elsewhere.
            sign(
                "JSONDecodeError: ",
                r"(?P<detail>JSONDecodeError: .{1,160})",
                frames=r"loads?\((?:line|row|record|l)\b|datasets/packaged_modules/json",
            ),
            sign("ParserError: ", r"(?P<detail>ParserError: Error tokenizing data.{0,120})"),
            sign(
                "TemplateError",
                r"TemplateError: (?P<detail>(?!.{0,40}not defined).{1,160})",
                confidence=Confidence.LIKELY,
            ),
        ),
        defaults={"detail": "see the line"},
        references=("Arrow", "datasets", "transformers: chat templates"),
    ),
)
