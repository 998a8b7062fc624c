"""Which of Ansible's variables its connection plugins read (ansible-core 2.19)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPlugin:
    """The variables of each setting of a plugin; of those that are given, the last counts.

    ``arguments`` stand before the plugin's own options on ssh's command line, ``more_arguments``
    behind them, each setting by itself.
    """

    host: tuple[str, ...]
    user: tuple[str, ...]
    port: tuple[str, ...]
    key: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    more_arguments: tuple[str, ...] = ()
    proxy: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        ways = (*self.arguments, *self.more_arguments, *self.proxy)
        return frozenset((*self.host, *self.user, *self.port, *self.key, *ways))


SSH = ConnectionPlugin(
    host=("ansible_host", "ansible_ssh_host"),
    user=("ansible_user", "ansible_ssh_user"),
    port=("ansible_port", "ansible_ssh_port"),
    key=("ansible_private_key_file", "ansible_ssh_private_key_file"),
    arguments=("ansible_ssh_args",),
    more_arguments=("ansible_ssh_common_args", "ansible_ssh_extra_args"),
)
# It reads none of ssh's arguments.
PARAMIKO = ConnectionPlugin(
    host=(*SSH.host, "ansible_paramiko_host"),
    user=(*SSH.user, "ansible_paramiko_user"),
    port=(*SSH.port, "ansible_paramiko_port"),
    key=(*SSH.key, "ansible_paramiko_private_key_file"),
    proxy=("ansible_paramiko_proxy_command",),
)
PYTHON = ("ansible_python_interpreter",)
CONNECTION = ("ansible_connection",)

PASSWORDS = (
    *("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"),
    *("ansible_paramiko_pass", "ansible_paramiko_password"),
)
PASSPHRASES = ("ansible_private_key_passphrase", "ansible_ssh_private_key_passphrase")
KEY_TEXTS = ("ansible_private_key", "ansible_ssh_private_key")
KEY_CHECKS = (
    *("ansible_host_key_checking", "ansible_ssh_host_key_checking"),
    "ansible_paramiko_host_key_checking",
)
EXECUTABLE = "ansible_ssh_executable"
PKCS11 = "ansible_ssh_pkcs11_provider"

_REMARKED = frozenset((*PASSWORDS, *PASSPHRASES, *KEY_TEXTS, *KEY_CHECKS, EXECUTABLE, PKCS11))
# They say nothing about which machine is reached, as whom, or on which way.
_WITHOUT_EFFECT = (
    *("ansible_become", "ansible_shell", "ansible_sftp_", "ansible_scp_", "ansible_control_path"),
    *("ansible_pipelining", "ansible_ssh_pipelining", "ansible_ssh_password_mechanism"),
    *("ansible_sshpass_prompt", "ansible_ssh_retries", "ansible_ssh_timeout", "ansible_timeout"),
    *("ansible_paramiko_timeout", "ansible_ssh_transfer_method", "ansible_ssh_use_tty"),
    *("ansible_ssh_verbosity", "ansible_ssh_control", "ansible_async_dir", "ansible_remote_tmp"),
    *("ansible_system_tmpdirs", "ansible_admin_users", "ansible_common_remote_group"),
    *("ansible_module_compression", "ansible_no_target_syslog", "ansible_python_module"),
    *("ansible_facts", "ansible_local", "ansible_group_priority", "ansible_distribution"),
)


def is_dropped(name: str, plugin: ConnectionPlugin | None) -> bool:
    """Whether a variable says something that is not taken and not told elsewhere.

    ``plugin`` None: the host is this machine.
    """
    if not name.startswith("ansible_"):
        return False
    known = plugin is None or name in plugin.names or name in (*PYTHON, *CONNECTION)
    return not (known or name in _REMARKED or name.startswith(_WITHOUT_EFFECT))
