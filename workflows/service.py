"""What makes the queue's worker come back after a reboot: a systemd unit, or a task of Windows' Task Scheduler."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from shlex import quote
from typing import Literal
from xml.sax.saxutils import escape

System = Literal["systemd", "windows"]


def unit(system: System, python: str, folder: Path, user: str) -> str:
    """Return the text that installs the worker for a user.

    Parameters
    ----------
    system : systemd: a user unit; windows: a task, as XML, that begins when the computer does, or this user logs on
    python : the interpreter that has kintsugi
    folder : where the worker runs; relative run folders lie under it
    user : whose worker it is, as `account` has it; systemd's is whoever installs it
    """
    arguments = "-m workflows.cli schedule work"
    if system == "systemd":
        return f"""[Unit]
Description=kintsugi: nights that are due
After=network-online.target

[Service]
ExecStart="{python}" {arguments}
WorkingDirectory={folder}
Restart=on-failure
RestartSec=30
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec=180

[Install]
WantedBy=default.target
"""
    return f"""<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>kintsugi: nights that are due</Description></RegistrationInfo>
  <Triggers>
    <BootTrigger><Enabled>true</Enabled><Delay>PT1M</Delay></BootTrigger>
    <LogonTrigger><Enabled>true</Enabled><UserId>{escape(user)}</UserId></LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="worker">
      <UserId>{escape(user)}</UserId>
      <LogonType>S4U</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>99</Count></RestartOnFailure>
  </Settings>
  <Actions Context="worker">
    <Exec>
      <Command>{escape(python)}</Command>
      <Arguments>{arguments}</Arguments>
      <WorkingDirectory>{escape(str(folder))}</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
"""


def how_to(system: System, file: Path) -> str:
    """Return the commands that install and start what `unit` wrote."""
    if system == "systemd":
        return (
            f"mkdir -p ~/.config/systemd/user && cp {quote(str(file))} ~/.config/systemd/user/kintsugi.service && "
            "systemctl --user enable --now kintsugi && loginctl enable-linger"
        )
    return (
        f'schtasks /Create /TN kintsugi /XML "{file}"   (as an administrator, then: schtasks /Run /TN kintsugi)\n'
        "It begins with the computer, before anybody logs on, and keeps no password (S4U). So it reaches this computer "
        "and what it calls over the network, but no shares: keep run folders on a disk of this computer. For a share "
        "let it keep one: schtasks /Change /TN kintsugi /RU USER /RP *"
    )


def account() -> str:
    """Return this user as Windows names users: with the domain before the name where there is one."""
    domain, name = os.environ.get("USERDOMAIN"), getpass.getuser()
    return f"{domain}\\{name}" if domain else name
