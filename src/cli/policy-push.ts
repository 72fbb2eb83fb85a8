import type { Command } from 'commander'
import { readPolicyFolder } from '../config/policy-folder.ts'
import { LimpidError } from '../errors.ts'
import { counted } from '../net/counted.ts'
import { LoadedPolicy } from '../policy/loaded-policy.ts'
import { configFile, loadConfig } from './config-file.ts'
import type { Invocation } from './invocation.ts'
import { note, printLine } from './print.ts'
import { notingProblems } from './problems.ts'

interface PushFlags {
  config?: string
  dryRun?: true
}

export function configurePush(command: Command, invocation: Invocation): void {
  command
    .command('push <folder>')
    .description('check the policy of a folder, and put it into the bucket that gateways watch')
    .option('-c, --config <config>', 'limpid.yaml with nats and policyFrom; without it the usual places are searched')
    .option('--dry-run', 'only check')
    .addHelpText(
      'after',
      `
The folder has policy.yaml, and lists in its folder lists. Lists are put first, then the policy; lists of the bucket that
the folder does not have are deleted at last. What is the same already is not put again.`,
    )
    .action((folder: string, flags: PushFlags) => notingProblems(invocation, () => push(folder, flags)))
}

async function push(folder: string, flags: PushFlags): Promise<void> {
  const path = configFile(flags.config, 'limpid policy push FOLDER -c limpid.yaml')
  const config = await loadConfig(path, { policyAlone: true })
  const { nats, policyFrom } = config
  const policy = readPolicyFolder(folder, config)
  const loaded = await LoadedPolicy.open(policy, note)
  await loaded.close()
  if (flags.dryRun === true) return printLine(`${folder}: good, ${counted(policy.rules.length, 'rule')}`)
  if (nats === undefined || policyFrom?.kind !== 'bucket') {
    throw new LimpidError('LIMPID_USAGE', `${path} names no bucket to put a policy into`, {
      cure: 'give it nats: { servers: … } and policyFrom: { bucket: … }',
    })
  }
  const { pushPolicy } = await import('../daemon/push-policy.ts')
  const { put, deleted, revision } = await pushPolicy(folder, nats, policyFrom.bucket)
  const changes = [...put.map((key) => `put ${key}`), ...deleted.map((key) => `deleted ${key}`)]
  printLine(
    `bucket ${policyFrom.bucket}: ${changes.length === 0 ? 'nothing has changed' : changes.join(', ')}; policy.yaml is revision ${revision}`,
  )
}
