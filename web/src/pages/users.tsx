//! The people who may sign in, and taking in a new one.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post } from "../api/client.ts";
import type { Role, User, WardLine } from "../api/types.ts";
import { roleText } from "../format/people.ts";
import { Dialog, DialogFoot, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";

const ROLES: Role[] = ["nurse", "physician", "biomedical-engineer", "auditor", "administrator"];
/** Least length of a password, in characters; the server decides. */
const PASSWORD_MIN = 12;

function useWards() {
  return useQuery({ queryKey: ["wards"], queryFn: ({ signal }) => get<{ wards: WardLine[] }>("/wards", signal) });
}

export function UsersPage() {
  useDocumentTitle("Users");
  const [adding, setAdding] = useState(false);
  const users = useQuery({ queryKey: ["users"], queryFn: ({ signal }) => get<{ users: User[] }>("/users", signal) });
  const wards = useWards();
  const wardNames = (user: User) =>
    user.wards === null ? "All" : user.wards.map((id) => wards.data?.wards.find((ward) => ward.id === id)?.name ?? "A ward not open to you").join(", ") || "None";
  return (
    <div className="page">
      <PageTitle
        actions={
          <button type="button" onClick={() => setAdding(true)}>
            New user
          </button>
        }
      >
        Users
      </PageTitle>
      {users.isPending && <Waiting what="users" />}
      {users.isError && <Failure error={users.error} retry={() => void users.refetch()} />}
      {users.data && (
        <div className="table-scroll">
          <table className="stack-table">
            <thead>
              <tr>
                <th scope="col">Display name</th>
                <th scope="col">Sign-in name</th>
                <th scope="col">Role</th>
                <th scope="col">Wards</th>
                <th scope="col">State</th>
              </tr>
            </thead>
            <tbody>
              {users.data.users.map((user) => (
                <tr key={user.id}>
                  <th scope="row">{user.display}</th>
                  <td data-label="Sign-in name">{user.name}</td>
                  <td data-label="Role">{roleText(user.role)}</td>
                  <td data-label="Wards">{wardNames(user)}</td>
                  <td data-label="State">{user.disabled ? "Disabled" : "May sign in"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {adding && <NewUser wards={wards.data?.wards ?? []} onClose={() => setAdding(false)} />}
    </div>
  );
}

function NewUser({ wards, onClose }: { wards: WardLine[]; onClose: () => void }) {
  const client = useQueryClient();
  const [form, setForm] = useState({ name: "", display: "", role: "nurse" as Role, password: "" });
  const [all, setAll] = useState(true);
  const [chosen, setChosen] = useState<string[]>([]);
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const save = useMutation({
    mutationFn: () => post<User>("/users", { ...form, wards: all ? null : chosen }),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["users"] });
      onClose();
    },
  });
  return (
    <Dialog title="New user" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <Field label="Sign-in name">
          <input required autoFocus autoCapitalize="none" autoComplete="off" value={form.name} onChange={set("name")} />
        </Field>
        <Field label="Display name">
          <input required autoComplete="off" value={form.display} onChange={set("display")} />
        </Field>
        <Field label="Role">
          <select value={form.role} onChange={set("role")}>
            {ROLES.map((role) => (
              <option key={role} value={role}>
                {roleText(role)}
              </option>
            ))}
          </select>
        </Field>
        <fieldset className="radio-group">
          <legend>Wards</legend>
          <label className="check">
            <input type="checkbox" checked={all} onChange={(event) => setAll(event.target.checked)} /> All wards
          </label>
          {!all &&
            wards.map((ward) => (
              <label key={ward.id} className="check">
                <input
                  type="checkbox"
                  checked={chosen.includes(ward.id)}
                  onChange={(event) => setChosen(event.target.checked ? [...chosen, ward.id] : chosen.filter((id) => id !== ward.id))}
                />
                {ward.name}
              </label>
            ))}
        </fieldset>
        <Field label="First password" hint={`At least ${PASSWORD_MIN} characters; hand it over in person`}>
          <input type="password" required minLength={PASSWORD_MIN} autoComplete="new-password" value={form.password} onChange={set("password")} />
        </Field>
        <DialogFoot action={save} onClose={onClose}>
          Create
        </DialogFoot>
      </form>
    </Dialog>
  );
}
