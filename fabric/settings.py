"""Django settings of Guardhouse, read from the environment; `docs/configuration.md` lists every variable."""

from datetime import timedelta
from pathlib import Path

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from fabric import environment
from ledger.custody.pcrs import BINDABLE

BASE_DIR = Path(__file__).resolve().parent.parent
STATE_DIR = Path(environment.text("STATE_DIR", str(BASE_DIR / "var")))

# --- what this node is -------------------------------------------------------------------------------------------
DEBUG = environment.flag("DEBUG", default=False)
INSECURE_SECRET_KEY = "django-insecure-for-development-only"  # noqa: S105  (`check --deploy` refuses this very value)
SECRET_KEY = environment.secret("SECRET_KEY", INSECURE_SECRET_KEY if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "GUARDHOUSE_SECRET_KEY is not set: set it, or GUARDHOUSE_SECRET_KEY_FILE, or GUARDHOUSE_DEBUG=1 to develop."
    )
ALLOWED_HOSTS = environment.words("ALLOWED_HOSTS", ["127.0.0.1", "localhost"])
FABRIC_NAME = environment.label("FABRIC_NAME", "demo")

# --- Guardhouse --------------------------------------------------------------------------------------------------
CHALLENGE_LIFETIME = timedelta(seconds=60)
CERTIFICATE_LIFETIME = timedelta(
    minutes=environment.whole_number("CERTIFICATE_MINUTES", 480, least=5, most=480),
)
RETRY_AFTER = timedelta(seconds=environment.whole_number("RETRY_SECONDS", 60, least=1, most=3600))
FOUR_EYES = environment.flag("FOUR_EYES", default=True)
SEQUENCER = environment.choice("SEQUENCER", "thread", {"thread", "command"})
CUSTODY = environment.choice("CUSTODY", "insecure-file", {"insecure-file", "tpm", "pkcs11"})
CUSTODY_FILE = Path(environment.text("CUSTODY_FILE", str(STATE_DIR / "custody.key")))
CUSTODY_SEALED_FILE = Path(environment.text("CUSTODY_SEALED_FILE", str(STATE_DIR / "custody.tpm")))
CUSTODY_TCTI = environment.text("CUSTODY_TCTI", "device:/dev/tpmrm0")
# Firmware, option ROMs, Secure Boot's keys: what changes when somebody services the machine, not with each new kernel.
CUSTODY_PCRS = environment.numbers("CUSTODY_PCRS", [0, 2, 7], of=BINDABLE)
# Beside another custody, the token of before: its keys go on opening there.
CUSTODY_PKCS11_MODULE = Path(environment.shaped("CUSTODY_PKCS11_MODULE", "/.+", like="/usr/lib/softhsm/libsofthsm2.so"))
CUSTODY_TOKEN = environment.text("CUSTODY_TOKEN", "")
CUSTODY_TOKEN_PIN = environment.secret("CUSTODY_PIN", "")  # a name that error pages hide
environment.together(
    {
        "CUSTODY_PKCS11_MODULE": CUSTODY_PKCS11_MODULE.name,
        "CUSTODY_TOKEN": CUSTODY_TOKEN,
        "CUSTODY_PIN": CUSTODY_TOKEN_PIN,
    },
    needed=CUSTODY == "pkcs11",
)
environment.all_or_none("KERBEROS_KEYTAB", "KERBEROS_SERVICE", "KERBEROS_REALM")
KERBEROS_KEYTAB = environment.shaped("KERBEROS_KEYTAB", "/.+", like="/etc/guardhouse/http.keytab")
KERBEROS_SERVICE = environment.shaped("KERBEROS_SERVICE", "[A-Za-z]+@[A-Za-z0-9.-]+", like="HTTP@host.example.net")
KERBEROS_REALM = environment.shaped("KERBEROS_REALM", "[A-Z0-9.-]+", like="EXAMPLE.NET")
KERBEROS_REPLAY_CACHE = STATE_DIR / "kerberos.replays"  # one for all processes of a node
environment.all_or_none("DIRECTORY", "DIRECTORY_ACCOUNT")
environment.needs("DIRECTORY", "KERBEROS_KEYTAB")
DIRECTORY = environment.directory("DIRECTORY")
DIRECTORY_ACCOUNT = environment.shaped("DIRECTORY_ACCOUNT", "[A-Za-z0-9._/$-]+", like="svc-guardhouse")

# --- Django ------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "template_partials",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "csp",
    "axes",
    "ledger",
    "attestation",
    "kps",
    "fabric",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "fabric.machine_door.MachineDoor",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "fabric.access.PrivatePages",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "fabric.errors.RefusalPages",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "fabric.urls"
ASGI_APPLICATION = "fabric.asgi.application"
WSGI_APPLICATION = "fabric.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "fabric.context.portal",
            ],
        },
    },
]

DATABASES = {"default": environment.database(STATE_DIR / "guardhouse.sqlite3")}
# A refused request must not roll back what it spent: transactions are opened by the services, never around a request.
for database in DATABASES.values():
    database["ATOMIC_REQUESTS"] = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = environment.secret("REDIS_URL", "")
CHANNEL_LAYERS: dict[str, dict[str, object]] = {
    "default": (
        {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
        if REDIS_URL
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    )
}

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "fabric.access.address"
AXES_LOCKOUT_CALLABLE = "fabric.errors.locked_out"
AXES_VERBOSE = False

LANGUAGE_CODE = "en"
TIME_ZONE = environment.text("TIME_ZONE", "UTC")
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Hashed names need `collectstatic` first; without them the files are served as they lie in static/, never cached.
HASHED_STATIC = environment.flag("HASHED_STATIC", default=not DEBUG)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if HASHED_STATIC
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not HASHED_STATIC

# Django's own bound on bodies that it holds in memory. The largest request is Evidence: an IMA list of 128 MiB and an
# event log of 1 MiB, in base64, plus the small fields. `fabric.parsing` bounds every other message much lower.
DATA_UPLOAD_MAX_MEMORY_SIZE = 180 * 1024 * 1024
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["fabric.api.access.ByToken", "fabric.api.access.BySession"],
    "DEFAULT_PERMISSION_CLASSES": ["fabric.api.access.Role"],
    "DEFAULT_PARSER_CLASSES": ["fabric.parsing.BoundedJson"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "fabric.parsing.OneAnswer",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "fabric.errors.problem",
}
# Knox keeps a token as its SHA-512: of 256 random bits nothing can be guessed, so that no slow hash is needed.
REST_KNOX = {"AUTH_HEADER_PREFIX": "Bearer", "TOKEN_PREFIX": "guard_"}
KNOX_TOKEN_MODEL = "fabric.ApiToken"  # noqa: S105  (the name of a table)
MIGRATION_MODULES = {"knox": None}  # its migrations would make the table of the model that ours stands for
SPECTACULAR_SETTINGS = {
    "TITLE": "Guardhouse",
    "DESCRIPTION": "Attestation, key protection and portal automation of one guarded fabric.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# --- transport and browser ---------------------------------------------------------------------------------------
# TLS is required everywhere but in development and on a node that is told it serves this machine alone.
LOOPBACK_ONLY = environment.flag("LOOPBACK_ONLY", default=False)
SECURE = not (DEBUG or LOOPBACK_ONLY)
CSRF_TRUSTED_ORIGINS = environment.words("TRUSTED_ORIGINS", [])
SECURE_SSL_REDIRECT = SECURE
BEHIND_PROXY = environment.flag("BEHIND_PROXY", default=False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE
SECURE_HSTS_PRELOAD = SECURE
SESSION_COOKIE_SECURE = SECURE
CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "fabric.errors.csrf_failure"
SESSION_COOKIE_AGE = 12 * 3600
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": environment.choice("LOG_LEVEL", "INFO", {"DEBUG", "INFO", "WARNING"})},
}
