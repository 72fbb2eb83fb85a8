/** Limpid's public seam: transparent TCP and UDP sockets, and the proxy that is made of them. */

export { createProxy } from './apps/create-proxy.ts'
export { type ConfigInput, defineConfig, type ProgramConfig } from './apps/define-config.ts'
export { type MakeTransform, transformApp } from './apps/transform-app.ts'
export { parseConfig } from './config/parse.ts'
export type { Config, ListenerConfig, OnDown, Source, Timeouts } from './config/types.ts'
export { type ErrorCode, LimpidError } from './errors.ts'
export type { Endpoint } from './net/address.ts'
export type { HandledFlow, Judgement, StreamApp } from './proxy/app.ts'
export {
  type BindUdpOptions,
  bindUdp,
  type SendOptions,
  type UdpDatagram,
  type UdpSocket,
} from './proxy/bind-udp.ts'
export { type DialTcpOptions, dialTcp, relayTcp } from './proxy/dial-tcp.ts'
export type { HookFlow, HookQuestion, Hooks } from './proxy/hooks.ts'
export type { HookRequest, HttpAnswerWords } from './proxy/http-hook.ts'
export { type ListenTcpOptions, listenTcp, type TcpAcceptor } from './proxy/listen-tcp.ts'
export type { TransparentProxy } from './proxy/proxy.ts'
export type { CloseReason, FlowRecord, SourceUsed } from './proxy/record.ts'
export type { ProxyStats } from './proxy/stats.ts'
export { TcpSocket } from './proxy/tcp-socket.ts'
export type { RelayReason } from './relay/reasons.ts'
export { type InstalledRuleset, type InstallOptions, installRuleset } from './ruleset/install.ts'
export { type Plan, planRuleset } from './ruleset/plan.ts'
export { type HostFacts, hostFacts } from './sys/host.ts'
