//! The tables of all services.

/// The tables of all services, in a schema of their own. Whoever comes first makes them, under a lock, as `if not exists`
/// fails when two do it at once.
pub(crate) const TABLES: &str = "
begin;
select pg_advisory_xact_lock(4711);
create schema if not exists alerts;
create table if not exists alerts.balances (
    account text primary key, cents bigint not null, change text not null, at timestamptz not null default now());
create table if not exists alerts.customers (
    account text primary key, phone text not null, wants boolean not null default true);
create table if not exists alerts.deliveries (
    id text primary key, account text not null, state text not null, at timestamptz not null default now());
create index if not exists deliveries_at on alerts.deliveries (at);
create table if not exists alerts.acknowledgements (
    id text primary key, account text not null, at timestamptz not null default now());
commit";
