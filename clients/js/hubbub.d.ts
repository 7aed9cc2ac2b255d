/** A client of a Hubbub chat for browsers and Node: every entry once and in order, sends that survive reconnects. */

export type Role = "owner" | "moderator" | "member" | "reader";
export type RoomKind = "public" | "private" | "direct";
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** One line of a room's log; `seq` is its place, without gaps. */
export interface EntryFields {
  room: string;
  seq: number;
  id: string;
  /** Epoch milliseconds; informative, `seq` is the order. */
  at: number;
  by: string;
  /** The author's display name at that time; absent when there is none. */
  name?: string;
}
/** Somebody said something; a deleted message has lost `text` and `data`. */
export interface MessageCreated extends EntryFields {
  type: "message.created";
  text?: string;
  data?: Json;
  client_id?: string;
  reply_to?: number;
  thread?: number;
  deleted?: boolean;
}
/** The message at `target` now reads so. */
export interface MessageEdited extends EntryFields {
  type: "message.edited";
  target: number;
  text?: string;
  data?: Json;
  deleted?: boolean;
}
export interface MessageDeleted extends EntryFields {
  type: "message.deleted";
  target: number;
}
export interface ReactionAdded extends EntryFields {
  type: "reaction.added";
  target: number;
  reaction: string;
}
export interface ReactionRemoved extends EntryFields {
  type: "reaction.removed";
  target: number;
  reaction: string;
}
export interface MemberJoined extends EntryFields {
  type: "member.joined";
  user: string;
  role: Role;
  user_name?: string;
}
export interface MemberLeft extends EntryFields {
  type: "member.left";
  user: string;
}
export interface MemberUpdated extends EntryFields {
  type: "member.updated";
  user: string;
  role: Role;
}
export interface RoomUpdated extends EntryFields {
  type: "room.updated";
  room_name?: string;
  kind?: RoomKind;
}
export type Entry =
  | MessageCreated
  | MessageEdited
  | MessageDeleted
  | ReactionAdded
  | ReactionRemoved
  | MemberJoined
  | MemberLeft
  | MemberUpdated
  | RoomUpdated;

export interface TypingSignal {
  type: "typing";
  room: string;
  by: string;
  name?: string;
  on: boolean;
}
/** In crowded rooms only `count` is told. */
export interface PresenceSignal {
  type: "presence";
  room: string;
  user?: string;
  online?: boolean;
  count: number;
}
export interface ReadSignal {
  type: "read";
  room: string;
  user: string;
  seq: number;
}
export interface HeadSignal {
  type: "head";
  room: string;
  head: number;
}
export interface RoomSignal {
  type: "room";
  room: string;
  joined: boolean;
  state?: RoomState;
}
export interface Notice {
  type: "notice";
  code: "going_away" | "token_expires" | "closing" | (string & {});
  message: string;
  in_ms?: number;
  /** With `closing`: the close code that counts, whatever code the connection then ends with. */
  close?: number;
}
export type Signal = TypingSignal | PresenceSignal | ReadSignal | HeadSignal | RoomSignal | Notice;

/** A room as this user sees it; `unread` counts others' messages after `read`. */
export interface RoomState {
  room: string;
  kind: RoomKind;
  name: string;
  role: Role;
  head: number;
  read: number;
  unread: number;
}
export interface Message {
  text?: string;
  data?: Json;
  reply_to?: number;
  thread?: number;
  /** Your own id of the message, at most 64 characters; made when absent. The same one is stored once. */
  client_id?: string;
}
export interface Sent {
  room: string;
  seq: number;
  id: string;
  at: number;
  client_id?: string;
}
export interface Appended {
  room: string;
  /** The new entry's `seq`; 0 if nothing changed. */
  seq: number;
}
export interface HistoryOptions {
  before?: number;
  after?: number;
  around?: number;
  /** At most 200; 50 when absent. */
  limit?: number;
  thread?: number;
}
export interface HistoryPage {
  room: string;
  /** Ascending by `seq`. */
  entries: Entry[];
  head: number;
  has_more: boolean;
  /** Later edits, deletions and reactions whose targets are in `entries`. */
  changes: Entry[];
}
export interface CreateOptions {
  kind: RoomKind;
  room?: string;
  name?: string;
  members?: string[];
}
export interface Joined {
  room: string;
  kind: RoomKind;
  name: string;
  head: number;
  role?: Role;
}
export interface PageOptions {
  after?: string;
  limit?: number;
}
export interface Member {
  user: string;
  role: Role;
  joined_at?: number;
  name?: string;
  avatar?: string;
}
export interface MemberPage {
  room: string;
  members: Member[];
  count: number;
  has_more: boolean;
}
export interface PublicRoom {
  id: string;
  kind: RoomKind;
  name?: string;
  created_at?: number;
  head?: number;
  first?: number;
  members?: number;
}
export interface RoomPage {
  rooms: PublicRoom[];
  has_more: boolean;
}
export interface Online {
  room: string;
  /** The first 200 user ids. */
  online: string[];
  count: number;
}

export type StateName = "connecting" | "live" | "waiting" | "closed";
export interface State {
  state: StateName;
  /** With `waiting`: how long until the next attempt. */
  retryInMs?: number;
  /** With `waiting` and `closed`: the WebSocket's close code, and why. */
  code?: number;
  reason?: string;
}

/** What each event hands to its listeners. */
export interface Events {
  state: State;
  /** Every entry of every room one listens to, once and in order. */
  entry: Entry;
  signal: Signal;
  /** After every change of `chat.rooms`; the same Map. */
  rooms: Map<string, RoomState>;
  /**
   * The room's seqs no longer hold, or what was missed is no longer kept: forget what you show of it; its last page
   * follows.
   */
  reset: string;
}

/** A failure with its wire code, or `disconnected` when the client has stopped, or `timeout`. */
export class HubbubError extends Error {
  constructor(code: string, message: string, options?: { retry?: boolean; retryAfterMs?: number; closeCode?: number });
  readonly code: string;
  /** Whether the same request can succeed later. */
  readonly retry: boolean;
  readonly retryAfterMs?: number;
  /** With code `disconnected`: the WebSocket's close code. */
  readonly closeCode?: number;
}

/** What the client needs of a WebSocket class: the constructor and `on…` handlers of browsers. */
export type WebSocketClass = new (url: string, protocols: string[]) => {
  onopen: any;
  onmessage: any;
  onerror: any;
  onclose: any;
  send(text: string): void;
  close(code?: number): void;
};

export interface Options {
  /** A JWT, or a function that gets one; it is asked again at each attempt to connect, and before a token runs out. */
  token: string | (() => string | Promise<string>);
  /** A WebSocket class, where there is no global one: in Node before 22 that of the package `ws`, or undici's. */
  WebSocket?: WebSocketClass;
  /** The first back-off at most, doubled with each failure; 250. */
  backoffBaseMs?: number;
  /** The longest back-off; 20000. */
  backoffCapMs?: number;
  /** How long nothing may be heard before the client pings; 30000. */
  heartbeatMs?: number;
  /** How long an answer to that ping, or the opening of a connection, may take; 10000. */
  answerMs?: number;
  /** How long a call may take, its retries included, and the getting of a token; 60000. Later it fails with `timeout`. */
  sendDeadlineMs?: number;
  /** How many calls may wait at once; 1000. */
  maxPending?: number;
  /** How many entries are held while a gap is repaired, and buffered for each slow iterator; 1000. */
  maxHeld?: number;
  /**
   * How many rooms a resuming sync names, so that its frame stays below the server's limit; what was missed in the
   * others is read from history; 300.
   */
  maxNamed?: number;
  /** Between 0 and 1, for the jitter; `Math.random`. */
  random?: () => number;
}

/** For one loop; once left, it can be taken up again where it stood. Make another for another loop. */
export interface RoomStream extends AsyncIterable<Entry> {
  [Symbol.asyncIterator](): AsyncIterator<Entry>;
}

export class Chat {
  /** As `connect`. */
  constructor(url: string, options: Options);
  /** The rooms one is in or subscribed to, kept up to date. */
  readonly rooms: Map<string, RoomState>;
  /** Whose token it is; null until the first sync. */
  readonly user: string | null;
  readonly connectionId: string | null;
  readonly state: State;

  /** Call `listener` at each such event; returns a function that stops it. */
  on<K extends keyof Events>(event: K, listener: (detail: Events[K]) => void): () => void;
  off<K extends keyof Events>(event: K, listener: (detail: Events[K]) => void): void;

  /** Resolves when the message is durable; survives reconnects. */
  send(room: string, message: string | Message): Promise<Sent>;
  edit(room: string, target: number, message: string | { text?: string; data?: Json }): Promise<Appended>;
  delete(room: string, target: number): Promise<Appended>;
  react(room: string, target: number, reaction: string): Promise<Appended>;
  unreact(room: string, target: number, reaction: string): Promise<Appended>;
  history(room: string, options?: HistoryOptions): Promise<HistoryPage>;
  create(options: CreateOptions): Promise<Joined>;
  join(room: string): Promise<Joined>;
  leave(room: string): Promise<Partial<Joined>>;
  invite(room: string, user: string, role?: Role): Promise<void>;
  kick(room: string, user: string): Promise<void>;
  role(room: string, user: string, role: Role): Promise<void>;
  members(room: string, options?: PageOptions): Promise<MemberPage>;
  publicRooms(options?: PageOptions): Promise<RoomPage>;
  /** Listen to a public room without joining; kept up across reconnects. */
  subscribe(room: string): Promise<{ room: string; head: number }>;
  unsubscribe(room: string): Promise<void>;
  typing(room: string, on?: boolean): Promise<void>;
  /** Mark as read up to `seq`, or up to the head. */
  read(room: string, seq?: number): Promise<void>;
  presence(room: string): Promise<Online>;
  /** Go on with a newer token now; the client does so by itself before one runs out. */
  auth(token: string): Promise<{ expires_at: number }>;
  /** The server's time, epoch milliseconds. */
  ping(): Promise<number>;
  /** Sync anew; the client does so by itself after each connect. */
  sync(): Promise<void>;
  /** Any action, such as one of your own: resolves with the reply's fields. */
  request<T = Record<string, unknown>>(action: string, fields?: Record<string, unknown>): Promise<T>;
  /**
   * The room's entries, once and in order, since the client began to listen to it (when it connected, or joined or
   * subscribed later), or after the seq `after`. `subscribe` listens to a public room without joining it.
   */
  room(room: string, options?: { after?: number; subscribe?: boolean }): RoomStream;
  /** End for good; what is pending is rejected. */
  close(): void;
}

/**
 * Connect to `url` (such as `wss://chat.example/ws`) and stay connected until `close()`.
 * Throws a TypeError when there is no WebSocket to be had, or no token.
 */
export function connect(url: string, options: Options): Chat;
