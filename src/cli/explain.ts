import { type Command, Option } from 'commander'
import { flagValue, usageError } from '../config/flags.ts'
import { MOMENT, momentFrom } from '../config/moment.ts'
import type { AskedFlow } from '../config/policy-types.ts'
import { CLIENT_ADDRESS, DETECTED, FLOW_DESTINATION, HOST_NAME, MAC } from '../config/policy-values.ts'
import type { Protocol } from '../config/types.ts'
import { INTERFACE } from '../config/values.ts'
import { explainFlow, missingOf } from '../policy/asked-flow.ts'
import { LoadedPolicy } from '../policy/loaded-policy.ts'
import { configFile, loadConfig } from './config-file.ts'
import { explanationJson, explanationLines } from './explanation.ts'
import type { Invocation } from './invocation.ts'
import { note, printJson, printLine } from './print.ts'
import { withSharedPolicy } from './shared-policy.ts'

interface ExplainFlags {
  config?: string
  protocol: Protocol
  listener?: string
  interface?: string
  mac?: string
  host?: string
  detected?: string
  learnt?: string[]
  at?: string
  json?: true
}

export function configure(command: Command, invocation: Invocation): void {
  command
    .argument('<client>', 'the address that dials')
    .argument('<destination>', 'what it dials: an address and port, or an address where no rule asks about ports')
    .option('-c, --config <file>', 'limpid.yaml; without it the usual places are searched')
    .addOption(new Option('--protocol <protocol>', 'tcp or udp').choices(['tcp', 'udp']).default('tcp'))
    .option('--listener <name>', 'the listener that takes it (the first one for that protocol)')
    .option('--interface <name>', 'the interface that it comes in by')
    .option('--mac <mac>', 'the MAC address of the client, as the neighbour table has it')
    .option(
      '--host <name>',
      'whom its first bytes are for: SNI or Host; of TLS (UDP: QUIC), unless --detected says otherwise',
    )
    .option('--detected <protocol>', 'what its first bytes are: tls, http1, http2, ssh, socks, quic, dns or unknown')
    .option('--learnt <name...>', 'a name by which the client knows the destination, from DNS')
    .option('--at <moment>', 'when: 10:30, mon 10:30 or 2026-01-05T10:30 (now)')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      '\nReads the file and its lists, and asks no running Limpid. Exit code 0, whatever is decided.',
    )
    .action(async (client: string, destination: string, flags: ExplainFlags) => {
      const asked = askedFlow(client, destination, flags)
      const path = configFile(flags.config, 'limpid explain CLIENT DESTINATION -c FILE')
      const config = withSharedPolicy(await loadConfig(path, { policyAlone: true, decides: false }))
      const missing = missingOf(asked, config, (key) => `--${key} NAME`)
      if (missing !== undefined) throw usageError('explain', missing)
      const loaded = await LoadedPolicy.open(config.policy, note)
      const explanation = explainFlow(asked, loaded.policy, config)
      await loaded.close()
      if (flags.json === true) printJson(explanationJson(explanation))
      else for (const line of explanationLines(explanation, invocation.colour)) printLine(line)
    })
}

function askedFlow(client: string, destination: string, flags: ExplainFlags): AskedFlow {
  const now = new Date()
  const moment = flagValue('--at', MOMENT, flags.at)
  return {
    client: flagValue('CLIENT', CLIENT_ADDRESS, client),
    originalDst: flagValue('DESTINATION', FLOW_DESTINATION, destination),
    protocol: flags.protocol,
    listener: flags.listener,
    interface: flagValue('--interface', INTERFACE, flags.interface),
    mac: flagValue('--mac', MAC, flags.mac),
    host: flagValue('--host', HOST_NAME, flags.host),
    detected: flagValue('--detected', DETECTED, flags.detected),
    learntNames: (flags.learnt ?? []).map((name) => flagValue('--learnt', HOST_NAME, name)),
    at: moment === undefined ? now : momentFrom(moment, now),
  }
}
