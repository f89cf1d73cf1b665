"""What makes the queue's worker come back after a reboot: a systemd unit, or a task of Windows' Task Scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

System = Literal["systemd", "windows"]


def unit(system: System, python: str, folder: Path) -> str:
    """Return the text that installs the worker for this user.

    Parameters
    ----------
    system : systemd: a user unit; windows: a task, as XML, that begins when this user logs on
    python : the interpreter that has kintsugi
    folder : where the worker runs; relative run folders lie under it
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
  <Triggers><LogonTrigger><Enabled>true</Enabled></LogonTrigger></Triggers>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>99</Count></RestartOnFailure>
  </Settings>
  <Actions>
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
            f"cp {file} ~/.config/systemd/user/kintsugi.service && systemctl --user enable --now kintsugi && "
            "loginctl enable-linger"
        )
    return f'schtasks /Create /TN kintsugi /XML "{file}"'
