// What cwebd sends: src/board.rs and src/routes.rs are the other end.

export type Severity = 'DEBUG' | 'INFO' | 'WARN' | 'ERR' | 'CRIT'
export type State = 'up' | 'down' | 'unknown' | 'open' | 'resolved'

/** Percent from 0 to 100, but for `load_per_core`; null where nobody measured it lately. */
export interface Load {
  mean: number | null
  cpu: number | null
  memory: number | null
  disk: number | null
  mount: string | null
  load_per_core: number | null
}

export interface HostRow {
  host: string
  state: State
  since: number
  severity: Severity | null
  open: number
  load: Load
}

export interface IncidentRow {
  incident: string
  address: string
  host: string
  rule: string
  severity: Severity
  since: number
  text: string
  acked: boolean
  silenced: boolean
  unreachable: boolean
}

export interface EventRow {
  id: string
  kind: string
  address: string
  severity: Severity
  time: number
  text: string
  rule: string
  duration_ms: number | null
}

export interface PublisherRow {
  name: string
  age_ms: number | null
}

export interface StateMessage {
  user: string | null
  can_log_in: boolean
  board: {
    now: number
    version: string
    publishers: PublisherRow[]
    hosts: HostRow[]
    incidents: IncidentRow[]
    more_incidents: number
    events: EventRow[]
  }
}

export interface DeltaMessage {
  hosts?: HostRow[]
  gone?: string[]
  loads?: Record<string, Load>
  opened?: IncidentRow[]
  closed?: string[]
  more_incidents: number
  events?: EventRow[]
}

export interface BeatMessage {
  now: number
  publishers: PublisherRow[]
}
