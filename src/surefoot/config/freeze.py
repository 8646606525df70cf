# SPDX-License-Identifier: Apache-2.0
"""From a config to a plan: what one environment's deployments will do, with every default and inheritance settled.

Guarantees: the plan says all that a deployment needs, so that a later edit of the config changes nothing about one that
was accepted; it holds names of secrets, never values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from surefoot.config import models
from surefoot.config.telling import targets
from surefoot.core import gates as core
from surefoot.core import plan


def freeze(config: models.Config, environment: str, environ: Mapping[str, str] | None = None) -> plan.Plan:
    """Return the plan of an environment's deployments; refuse an environment that there is not.

    `environ` is of whoever asks: CI names the repository there.
    """
    env = config.environment(environment)
    policy = env.health_policy
    retry = plan.Retry(env.retry.attempts, env.retry.delay, env.retry.timeout)
    return plan.Plan(
        project=config.project,
        environment=environment,
        steps=tuple(_step(step, retry) for step in env.steps),
        inventory=env.inventory,
        retry=retry,
        preflight=tuple(map(_check, env.preflight)),
        health=tuple(map(_check, env.health)),
        health_policy=plan.HealthPolicy(policy.within, policy.every, policy.successes),
        version_probe=_check(env.version_probe) if env.version_probe else None,
        state_file=env.state_file,
        on_cancel=env.on_cancel,
        takeover_limit=env.takeover_limit,
        secrets=config.secret_names,
        sources=tuple(source for secret in config.secrets if (source := _source(secret)) is not None),
        ssh=plan.Ssh(env.ssh.private_key or "", env.ssh.user or "") if env.ssh else None,
        fence_path=env.fence.path if env.fence else None,
        targets=targets(config, os.environ if environ is None else environ),
        gates=gates(config, environment),
        rollback=_work(env.rollback) if env.rollback else None,
        bake=env.bake,
    )


def gates(config: models.Config, environment: str) -> core.Gates:
    """Return the gates of an environment, with the members of the groups that its approvals may come from."""
    env = config.environment(environment)
    promote, asked = env.promote_from, env.approvals
    return core.Gates(
        approvals=None
        if asked is None
        else core.Approvals(
            required=asked.required,
            groups={name: config.groups.get(name) for name in asked.from_},
            expires=asked.expires,
            rollbacks=asked.rollbacks,
        ),
        windows=tuple(window.planned for window in env.windows),
        promote_from=core.PromoteFrom(promote.environment, promote.within, promote.after) if promote else None,
        latest=env.queue is models.Queue.LATEST,
    )


def _source(secret: models.Secret) -> plan.SecretSource | None:
    """Return where a secret is read; None where that is the agent's environment, under its own name."""
    command = ("/bin/sh", "-c", secret.command) if isinstance(secret.command, str) else secret.command or ()
    vault = secret.ansible_vault
    source = plan.SecretSource(
        name=secret.name,
        env=secret.env or "",
        file=secret.file or "",
        command=command,
        vault=plan.VaultFile(
            file=vault.file,
            key=vault.key or "",
            password=(vault.password or "").removeprefix("${").removesuffix("}"),
            password_file=vault.password_file or "",
        )
        if vault is not None
        else None,
        timeout=secret.timeout,
    )
    return source if source.env or source.file or source.command or source.vault else None


def _step(step: models.Step, inherited: plan.Retry) -> plan.Step:
    own = step.retry
    return plan.Step(
        name=step.name,
        work=_work(step),
        undo=_work(step.undo) if step.undo else None,
        retry=plan.Retry(
            attempts=inherited.attempts if own.attempts is None else own.attempts,
            delay=inherited.delay if own.delay is None else own.delay,
            timeout=inherited.timeout if own.timeout is None else own.timeout,
        ),
        leaves_processes=step.leaves_processes,
    )


def _work(work: models.Step | models.Undo) -> plan.Work:
    if work.run is not None:
        return plan.Command(work.run)
    assert work.playbook is not None
    return plan.Playbook(work.playbook)


def _check(check: models.Check) -> plan.Check:
    return plan.Check(check.kind, check.options, check.name)
