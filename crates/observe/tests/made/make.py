#!/usr/bin/env python3
"""Independent generator of captures with expected facts, from protocols.md only (not from crates/wire)."""
import struct, json, random, socket, sys, os
OUT=sys.argv[1] if len(sys.argv)>1 else '.'
def ip(a): return socket.inet_aton(a)
def csum(b):
    if len(b)%2: b+=b'\0'
    s=sum(struct.unpack('>%dH'%(len(b)//2),b))
    while s>>16: s=(s&0xffff)+(s>>16)
    return ~s&0xffff
class Cap:
    def __init__(s,link='eth'): s.link=link; s.f=[]; s.t=1700000000.0; s.macs={}; s.ident=1
    def mac(s,a): return s.macs.setdefault(a, bytes([2,0,0,0]+[int(x) for x in a.split('.')[2:]]))
    def raw(s,eth):
        s.t+=0.001; s.f.append((s.t,eth))
    def ipf(s,src,dst,proto,pay,frag=None,ident=None,ttl=64):
        if ident is None: s.ident+=1; ident=s.ident
        off=0 if frag is None else frag
        h=struct.pack('>BBHHHBBH4s4s',0x45,0,20+len(pay),ident,off,ttl,proto,0,ip(src),ip(dst))
        h=h[:10]+struct.pack('>H',csum(h))+h[12:]
        dm=b'\xff'*6 if dst.endswith('.255') or dst=='255.255.255.255' else s.mac(dst)
        s.raw(dm+s.mac(src)+b'\x08\x00'+h+pay)
    def udp(s,src,sp,dst,dp,pay,mtu=1480):
        u=struct.pack('>HHHH',sp,dp,8+len(pay),0)+pay
        if len(u)<=mtu: return s.ipf(src,dst,17,u)
        s.ident+=1; i=s.ident; o=0
        while o<len(u):
            part=u[o:o+mtu]; more=0x2000 if o+mtu<len(u) else 0
            s.ipf(src,dst,17,part,frag=(o//8)|more,ident=i); o+=mtu
    def icmp_unreach(s,src,dst,orig): # orig: ip header+8
        p=struct.pack('>BBHI',3,3,0,0)+orig; p=p[:2]+struct.pack('>H',csum(p))+p[4:]
        s.ipf(src,dst,1,p)
    def save(s,name):
        lt={'eth':1,'sll':113,'sll2':276}[s.link]
        with open(f'{OUT}/{name}.pcap','wb') as o:
            o.write(struct.pack('<IHHiIII',0xa1b2c3d4,2,4,0,0,65535,lt))
            for t,e in s.f:
                dst,src,typ=e[:6],e[6:12],struct.unpack('>H',e[12:14])[0]; pay=e[14:]
                if typ<1536:
                    proto=1 if pay[:2]==b'\xff\xff' else 4; pay=pay[:typ]
                else: proto=typ
                pt=1 if dst==b'\xff'*6 else 3
                if s.link=='sll': e=struct.pack('>HHH8sH',pt,1,6,src+b'\0\0',proto)+pay
                if s.link=='sll2': e=struct.pack('>HHIHBB8s',proto,0,3,1,pt,6,src+b'\0\0')+pay
                o.write(struct.pack('<IIII',int(t),int((t%1)*1e6),len(e),len(e))+e)
class Tcp:
    """One direction carries data: a connects to b."""
    port=1024
    def __init__(s,c,a,b,bp,sport=None):
        Tcp.port+=1; s.c=c; s.a,s.b,s.bp=a,b,bp; s.ap=sport or Tcp.port; s.seq=random.randrange(2**32); s.ack=random.randrange(2**32)
        s.seg(s.a,s.b,s.ap,s.bp,2,b'',s.seq,0); s.seg(s.b,s.a,s.bp,s.ap,0x12,b'',s.ack,s.seq+1); s.seq+=1; s.ack+=1
        s.seg(s.a,s.b,s.ap,s.bp,0x10,b'',s.seq,s.ack)
    def seg(s,a,b,ap,bp,fl,pay,seq,ack):
        h=struct.pack('>HHIIBBHHH',ap,bp,seq%2**32,ack%2**32,0x50,fl,8760,0,0)+pay
        ps=ip(a)+ip(b)+struct.pack('>BBH',0,6,len(h)); h=h[:16]+struct.pack('>H',csum(ps+h))+h[18:]
        s.c.ipf(a,b,6,h)
    def send(s,data,cut=1460,order=None,dup=()):
        parts=[(s.seq+o,data[o:o+cut]) for o in range(0,len(data),cut)]
        idx=order(len(parts)) if order else list(range(len(parts)))
        for i in idx:
            q,p=parts[i]; s.seg(s.a,s.b,s.ap,s.bp,0x18,p,q,s.ack)
            if i in dup: s.seg(s.a,s.b,s.ap,s.bp,0x18,p,q,s.ack)
        s.seq+=len(data)
        s.seg(s.b,s.a,s.bp,s.ap,0x10,b'',s.ack,s.seq)
    def fin(s):
        s.seg(s.a,s.b,s.ap,s.bp,0x11,b'',s.seq,s.ack); s.seg(s.b,s.a,s.bp,s.ap,0x11,b'',s.ack,s.seq+1); s.seg(s.a,s.b,s.ap,s.bp,0x10,b'',s.seq+1,s.ack+1)
    def rst(s): s.seg(s.a,s.b,s.ap,s.bp,0x14,b'',s.seq,s.ack)
    def rst_back(s): s.seg(s.b,s.a,s.bp,s.ap,0x14,b'',s.ack,s.seq)
D=9
def env(body,port,token=0xfab,addr='0.0.0.0'):
    n=20+len(body); return struct.pack('<IH',n|token<<20,2)+struct.pack('>H',port)+ip(addr)+b'\0'*8+body
def msg(cmd,body,port,token=0xfab,d=None): return env(b'play'+struct.pack('<HH',cmd,D if d is None else d)+body,port,token)
def w(s): return s.encode('utf-16le')+b'\0\0' if s is not None else b''
def spdata(t,u,a='0.0.0.0'): return b''.join(struct.pack('<H',2)+struct.pack('>H',p)+ip(a)+b'\0'*8 for p in (t,u))
def pp(pid,flags,sysid,short=None,long=None,sp=b'',data=b''):
    a,b=w(short),w(long); n=48+len(a)+len(b)+len(sp)+len(data)
    return struct.pack('<12I',n,flags,pid,len(a),len(b),len(sp),len(data),0,sysid,48,D,0)+a+b+sp+data
def spp(pid,flags,ref,short=None,long=None,sp=b'',data=b''):
    m=0; out=b''
    if short is not None: m|=1; out+=w(short)
    if long is not None: m|=2; out+=w(long)
    def ln(n): return (1,struct.pack('<B',n)) if n<256 else (2,struct.pack('<H',n))
    if data: k,x=ln(len(data)); m|=k<<4; out+=x+data
    if sp: k,x=ln(len(sp)); m|=k<<2; out+=x+sp
    return struct.pack('<5I',16,flags,pid,m,ref)+out
def sd(inst,app,mx,cur,flags,key): return struct.pack('<II',80,flags)+inst+app+struct.pack('<10I',mx,cur,0xdeadbeef,0,key,0,1,2,3,4)
def enum(app,flags=1,pw=None): return app+struct.pack('<II',32 if pw else 0,flags)+w(pw) if pw else app+struct.pack('<II',0,flags)
def enumrep(s,name): return s+struct.pack('<I',92 if name is not None else 0)+w(name)
def reqid(fl): return struct.pack('<I',fl)
def reqrep(i,hr=0): return struct.pack('<I',i)+b'\0'*24+struct.pack('<IIi',0,0,hr if hr<2**31 else hr-2**32)
def create(pid,p,to=0): return struct.pack('<5I',to,pid,0,28,0)+p+b'\0'*6
def addfwd(pid,p,pw=None,tick=77): 
    x=p; po=0
    if pw: po=28+len(p); x+=w(pw)
    return struct.pack('<5I',0,pid,0,28,po)+x+struct.pack('<I',tick)
def fwd(pid,p,pw=None): return struct.pack('<5I',0,pid,0,28,28+len(p) if pw else 0)+p+w(pw)
def superenum(s,name,pw,players,groups=0):
    o=36; body=s; no=o+80; body+=w(name); po=0
    if pw: po=no+len(w(name)); body+=w(pw)
    pk=o+len(body); 
    return struct.pack('<7I',len(players),groups,pk,0,o,no,po)+body+b''.join(players)
def dele(pid): return struct.pack('<5I',0,pid,0,0,0)
def user(f,t,pay,port): return env(struct.pack('<II',f,t)+pay,port)
def userudp(f,t,pay): return struct.pack('<II',f,t)+pay
hx=lambda i:'%08x'%i
class Host:
    def __init__(s,c,a,name,inst,app,mx=8,flags=0x44,key=0,tcp=2300,udp=2350,pw=None,hostname='Host'):
        s.c=c; s.ip=a; s.name=name; s.inst=inst; s.app=app; s.mx=mx; s.flags=flags; s.key=key; s.tcp=tcp; s.udp=udp; s.pw=pw; s.n=1
        s.sysid=key^0x00010001; s.pid=key^0x00020002; s.hostname=hostname; s.cur=1; s.members=[]; s.conn={}
        s.players=[spp(s.sysid,3,D,sp=spdata(tcp,udp)),spp(s.pid,0,s.sysid,hostname,hostname+' long')]
    def sd(s): return sd(s.inst,s.app,s.mx,s.cur,s.flags,s.key)
    def reply(s,asker,port):
        t=s.conn.get(asker) or s.conn.setdefault(asker,Tcp(s.c,s.ip,asker,port)); t.send(msg(1,enumrep(s.sd(),s.name),s.tcp))
    def to(s,peer,port=2300): return s.conn.get(peer) or s.conn.setdefault(peer,Tcp(s.c,s.ip,peer,port))
class Joiner:
    def __init__(s,c,a,tcp=2300,udp=2350): s.c=c; s.ip=a; s.tcp=tcp; s.udp=udp; s.conn={}
    def to(s,h): return s.conn.get((h.ip,h.tcp)) or s.conn.setdefault((h.ip,h.tcp),Tcp(s.c,s.ip,h.ip,h.tcp))
    def enum(s,app,pw=None,dst='255.255.255.255'):
        s.c.udp(s.ip,1050,dst,47624,msg(2,enum(app,0x41 if pw else 1,pw),s.tcp))
    def join(s,h,name,idx,pw=None,**kw):
        up=s.to(h); up.send(msg(5,reqid(9),s.tcp),**kw)
        s.sysid=h.key^(idx<<16|idx); s.pid=h.key^((idx+1)<<16|(idx+1))
        dn=h.to(s.ip,s.tcp); dn.send(msg(7,reqrep(s.sysid),h.tcp))
        up.send(msg(0x13,addfwd(s.sysid,pp(s.sysid,9,s.sysid,sp=spdata(s.tcp,s.udp)),pw),s.tcp),**kw)
        for m in h.members:
            h.to(m.ip,m.tcp).send(msg(0x2e,fwd(s.sysid,pp(s.sysid,1,s.sysid,sp=spdata(s.tcp,s.udp,s.ip))),h.tcp))
            m.to(h).send(msg(0x2f,struct.pack('<I',s.sysid),m.tcp))
        h.players.append(spp(s.sysid,1,D,sp=spdata(s.tcp,s.udp,s.ip)))
        dn.send(msg(0x29,superenum(h.sd(),h.name,pw,h.players),h.tcp),**kw)
        up.send(msg(5,reqid(8),s.tcp)); dn.send(msg(7,reqrep(s.pid),h.tcp))
        h.players.append(spp(s.pid,0,s.sysid,name,name+' long')); h.cur+=1
        cp=msg(8,create(s.pid,pp(s.pid,8,s.sysid,name,name+' long')),s.tcp)
        up.send(cp,**kw)
        for m in h.members: s.peer(m).send(cp)
        h.members.append(s); s.name=name
    def peer(s,m): return s.conn.get((m.ip,m.tcp)) or s.conn.setdefault((m.ip,m.tcp),Tcp(s.c,s.ip,m.ip,m.tcp))
def g(x): return bytes([x]*16)
def scenario(link):
    c=Cap(link); random.seed(5); e={}
    A=Host(c,'10.0.0.1','Alpha Bahn',g(0xa1),g(0xee),4,0x44,0x11110000,hostname='Anna')
    B=Host(c,'10.0.0.2','Beta Bahn',g(0xb2),g(0xee),2,0x440,0x22220000,hostname='Bernd',pw='geheim')
    A2=Host(c,'10.0.0.1','Zweites Spiel',g(0xc3),g(0xdd),0,0,0x33330000,tcp=2301,udp=2351,hostname='Anna2')
    j=[Joiner(c,'10.0.0.%d'%(10+i)) for i in range(5)]
    for x in j[:3]:
        x.enum(g(0xee)); A.reply(x.ip,2300); B.reply(x.ip,2300)
    j[3].enum(g(0xdd)); A2.reply(j[3].ip,2300)
    j[0].join(A,'Carl',3,cut=7)
    j[1].join(A,'Dora',5,cut=33,order=lambda n:list(reversed(range(n))) if n<6 else [0,2,1]+list(range(3,n)),dup=(0,))
    # password session
    j[2].enum(g(0xee),pw='geheim'); j[2].join(B,'Emil',3,pw='geheim')
    # refused: full
    r=j[4]; r.enum(g(0xee)); B.reply(r.ip,2300)
    r.to(B).send(msg(5,reqid(9),2300)); B.to(r.ip).send(msg(7,reqrep(0,0x8877014A),2300))
    # refused at add forward (wrong password), on B
    r.to(B).send(msg(5,reqid(9),2300)); B.to(r.ip).send(msg(7,reqrep(0x22220000^0x00090009),2300))
    r.to(B).send(msg(0x13,addfwd(0x22220000^0x00090009,pp(0x22220000^0x00090009,9,0,sp=spdata(2300,2350)),'falsch'),2300))
    B.to(r.ip).send(msg(0x24,struct.pack('<I',0x88770122),2300))
    j[3].join(A2,'Frida',3)
    # user messages
    for i in range(3): c.udp(j[0].ip,2350,A.ip,2350,userudp(j[0].pid,A.pid,b'hello%d'%i))
    c.udp(j[0].ip,2350,A.ip,2350,userudp(j[0].pid,A.pid,b'x'*4000))
    j[0].to(A).send(user(j[0].pid,A.pid,b'y'*3000,2300)); j[1].to(A).send(user(j[1].pid,A.pid,b'z',2300)+user(j[1].pid,A.pid,b'zz',2300))
    j[0].peer(j[1]).send(user(j[0].pid,j[1].pid,b'peer',2300))
    # chat: from,to,flags,O text
    A.to(j[0].ip).send(msg(0x2d,struct.pack('<4I',A.pid,0,0,24)+w('hallo zusammen'),2300))
    # rename Dora -> Doris
    j[1].to(A).send(msg(0x10,struct.pack('<4I',0,j[1].pid,24,24+len(w('Doris')))+w('Doris')+w('Doris lang'),2300))
    # group with Carl and Anna
    gid=0x11110000^0x00070007
    A.to(j[0].ip).send(msg(9,create(gid,pp(gid,0x40,A.sysid,'Gruppe','')),2300))
    A.to(j[0].ip).send(msg(0xd,struct.pack('<5I',0,j[0].pid,gid,0,0),2300))
    # leaves: Carl by message, Dora by FIN, Emil by RST
    j[0].to(A).send(msg(0xb,dele(j[0].pid),2300)+msg(0xb,dele(j[0].sysid),2300))
    for t in (j[0].to(A),A.to(j[0].ip)): t.fin()
    for t in (j[1].to(A),A.to(j[1].ip)): t.fin()
    j[2].to(B).rst(); 
    e=dict(sessions=[dict(name='Alpha Bahn',host_ip='10.0.0.1',max_players=4,flags='0x00000044',password_required=False,instance_guid_wire='a1'*16,app_guid_wire='ee'*16,dialect=9,host_system_id=hx(A.sysid),id_xor_key=hx(A.key),transport='tcp'),
       dict(name='Beta Bahn',host_ip='10.0.0.2',max_players=2,flags='0x00000440',password_required=True,host_system_id=hx(B.sysid)),
       dict(name='Zweites Spiel',host_ip='10.0.0.1',max_players=0,password_required=False,host_system_id=hx(A2.sysid))],
     enumerations=[dict(ip='10.0.0.10',count=1,reply_port=2300),dict(ip='10.0.0.12',count=2),dict(ip='10.0.0.13',count=1),dict(ip='10.0.0.14',count=1)],
     players=[dict(id=hx(A.pid),name='Anna',long='Anna long',ip='10.0.0.1',system_id=hx(A.sysid),host=True,session='Alpha Bahn'),
      dict(id=hx(j[0].pid),name='Carl',ip='10.0.0.10',host=False,session='Alpha Bahn'),dict(id=hx(j[1].pid),name='Doris',long='Doris lang',ip='10.0.0.11'),
      dict(id=hx(j[2].pid),name='Emil',session='Beta Bahn',ip='10.0.0.12'),dict(id=hx(j[3].pid),name='Frida',session='Zweites Spiel',ip='10.0.0.13'),dict(name='Bernd',host=True,session='Beta Bahn'),dict(name='Anna2',host=True,ip='10.0.0.1',session='Zweites Spiel')],
     system_players=[dict(id=hx(A.sysid),host=True,ip='10.0.0.1'),dict(id=hx(j[0].sysid),ip='10.0.0.10',host=False,dialect=9),dict(id=hx(j[3].sysid),session='Zweites Spiel')],
     refused=[dict(ip='10.0.0.14',session='Beta Bahn',player_request_result='0x8877014a'),dict(ip='10.0.0.14',session='Beta Bahn',player_request_result='0x88770122')],
     chat=[dict(**{'from':'Anna','text':'hallo zusammen'})],
     groups=[dict(id=hx(gid),members=[hx(j[0].pid)])],
     user_messages=[dict(src='10.0.0.10',dst='10.0.0.1',udp=4,tcp=1),dict(src='10.0.0.11',dst='10.0.0.1',udp=0,tcp=2),dict(src='10.0.0.10',dst='10.0.0.11',udp=0,tcp=1)],
     join_order=['Anna','Carl','Doris','Bernd','Emil','Anna2','Frida'],leave_order=['Carl','Doris','Emil'],n_sessions=3,n_players=7,absent=['geheim','falsch'])
    return c,e
for l in ('eth','sll','sll2'):
    c,e=scenario(l); c.save('hosts-'+l); json.dump(e,open(f'{OUT}/hosts.json','w'),indent=1)
# IPX: ipxbox-like server: random nodes, reply dest FFx6, checksum 0000 on the wire towards ethernet
def ipx(dn,dk,ds,sn,sk,ss,pay,typ=4,ck=0xffff,hops=0): return struct.pack('>HHBBI6sHI6sH',ck,30+len(pay),hops,typ,dn,dk,ds,sn,sk,ss)+pay
c=Cap(); srv='10.0.1.1'; F=b'\xff'*6; Z=b'\0'*6
nodes=[bytes.fromhex('02aabbccdd0%d'%i) for i in range(3)]
for i in range(3):
    cl='10.0.1.%d'%(20+i)
    c.udp(cl,5000+i,srv,10213,ipx(0,Z,2,0,Z,2,b'',typ=0x33))
    c.udp(srv,10213,cl,5000+i,ipx(0,nodes[i],2,1,F,2,b''))
cl4='10.0.1.30'; c.udp(cl4,5009,srv,10213,ipx(0,Z,2,0,Z,2,b'',typ=2)) # unanswered
c.udp('10.0.1.20',5000,srv,10213,ipx(0,F,0x5100,0,nodes[0],0x5100,b'hi'))
for i in (1,2): c.udp(srv,10213,'10.0.1.%d'%(20+i),5000+i,ipx(0,F,0x5100,0,nodes[0],0x5100,b'hi'))
c.save('ipxbox-10213')
c.f=[(t,e) for t,e in c.f]
json.dump(dict(note='same on port 213 too',),open(f'{OUT}/ipxbox-10213.json','w'))
c=Cap()
for i in range(3):
    cl='10.0.1.%d'%(20+i)
    c.udp(cl,5000+i,srv,213,ipx(0,Z,2,0,Z,2,b'',typ=0x33))
    c.udp(srv,213,cl,5000+i,ipx(0,nodes[i],2,1,F,2,b''))
c.udp(cl4,5009,srv,213,ipx(0,Z,2,0,Z,2,b'',typ=2))
c.udp('10.0.1.20',5000,srv,213,ipx(0,F,0x5100,0,nodes[0],0x5100,b'hi'))
for i in (1,2): c.udp(srv,213,'10.0.1.%d'%(20+i),5000+i,ipx(0,F,0x5100,0,nodes[0],0x5100,b'hi'))
def eth(dst,src,typ,p): return dst+src+struct.pack('>H',typ)+p
m1,m2,m3=[bytes([0,0x80,0xc7,0,0,i]) for i in (1,2,3)]
p=ipx(0,F,0x455,0,m1,0x455,b'x'*9); c.raw(eth(F,m1,len(p)+3,b'\xe0\xe0\x03'+p).ljust(60,b'\0'))
p=ipx(0,F,0x455,0,m2,0x455,b'x'*9); c.raw(eth(F,m2,len(p),p).ljust(60,b'\0'))
p=ipx(0,F,0x455,0,m3,0x455,b'x'*9); c.raw(eth(F,m3,0x8137,p).ljust(60,b'\0'))
sap=struct.pack('>H',2)+b''.join(struct.pack('>H48sI6sHH',t,n,0x77,m2,sk,1) for t,n,sk in ((4,b'FILESRV',0x451),(7,b'DRUCKER',0x8060)))
p=ipx(0,F,0x452,0,m2,0x452,sap); c.raw(eth(F,m2,len(p)+8,b'\xaa\xaa\x03\0\0\0\x81\x37'+p))
c.save('ipx-mixed')
json.dump(dict(ipxnet=dict(server='10.0.1.1:213',registrations=3,clients=[dict(ip='10.0.1.2%d'%i,port=5000+i,node=nodes[i].hex()) for i in range(3)]),
  ipx=dict(framings=dict(ethernet_ii=1,raw_802_3=1,llc=1,snap=1),stations=[dict(node=m1.hex(),framing='llc'),dict(node=m3.hex(),framing='ethernet_ii')],sap=[dict(name='FILESRV',type=4,socket='0x0451'),dict(name='DRUCKER',type=7,socket='0x8060')])),open(f'{OUT}/ipx-mixed.json','w'))
# DirectPlay 8
c=Cap()
def dp8q(pid,app=None): return struct.pack('<BBHB',0,2,pid,1 if app else 2)+(app or b'')
def dp8r(pid,name,inst,app,mx,cur,fl):
    nm=name.encode('utf-16le')+b'\0\0'; no=4+56+32-4
    # offsets count from byte 4
    body=struct.pack('<14I',0,0,0x50,fl,mx,cur,88,len(nm),0,0,0,0,0,0)+inst+app+nm
    return struct.pack('<BBH',0,3,pid)+body
c.udp('10.0.2.9',4000,'255.255.255.255',6073,dp8q(7,g(0x5a))); c.udp('10.0.2.9',4000,'255.255.255.255',6073,dp8q(8))
c.udp('10.0.2.1',2302,'10.0.2.9',4000,dp8r(7,'Acht',g(1),g(0x5a),6,2,0x84)); c.udp('10.0.2.1',2302,'10.0.2.9',4000,dp8r(8,'Acht',g(1),g(0x5a),6,3,0x84))
c.udp('10.0.2.2',2302,'10.0.2.9',4000,dp8r(8,'Neun',g(2),g(0x5a),0,1,0))
c.save('dplay8'); json.dump(dict(dplay8=dict(queries=2,responses=3,sessions=[dict(name='Acht',max_players=6,current_players=3,flags='0x00000084'),dict(name='Neun',max_players=0,current_players=1,flags='0x00000000')])),open(f'{OUT}/dplay8.json','w'))

# DirectPlay 4 over IPX: no envelope, "play" first; SP data is a sockaddr_ipx; all is datagram
c=Cap(); n1,n2,n3=[bytes([0,0x40,0xf4,0,0,i]) for i in (1,2,3)]; SOCK=0x4002
def bare(cmd,body): return b'play'+struct.pack('<HH',cmd,D)+body
def spx(node,sock=SOCK): return struct.pack('<HI',6,0)+node+struct.pack('>H',sock)
def ix(a,b,pay,sock=SOCK): p=ipx(0,b,sock,0,a,SOCK,pay); c.raw(eth(b,a,0x8137,p).ljust(60,b'\0'))
key=0x5a5a0000; ida=lambda i: key^(i<<16|i)
desc=lambda cur: sd(g(0x41),g(0x42),6,cur,0x4,key)
ix(n2,F,bare(2,enum(g(0x42)))); ix(n1,n2,bare(1,enumrep(desc(1),'Nordbahn')))
def ijoin(node,i,name,table,others):
    ix(node,n1,bare(5,reqid(9))); ix(n1,node,bare(7,reqrep(ida(i))))
    ix(node,n1,bare(0x13,addfwd(ida(i),pp(ida(i),9,ida(i),sp=spx(node)))))
    for o in others:
        ix(n1,o,bare(0x2e,fwd(ida(i),pp(ida(i),1,ida(i),sp=spx(node))))); ix(o,n1,bare(0x2f,struct.pack('<I',ida(i))))
    table.append(spp(ida(i),1,D,sp=spx(node)))
    ix(n1,node,bare(0x29,superenum(desc(1+len(others)),'Nordbahn',None,table)))
    ix(node,n1,bare(5,reqid(8))); ix(n1,node,bare(7,reqrep(ida(i+1))))
    for o in [n1]+others: ix(node,o,bare(8,create(ida(i+1),pp(ida(i+1),8,ida(i),name,name+' lang'))))
    table.append(spp(ida(i+1),0,ida(i),name,name+' lang'))
table=[spp(ida(1),3,D,sp=spx(n1)),spp(ida(2),0,ida(1),'Nora','Nora lang')]
ijoin(n2,3,'Olaf',table,[]); ijoin(n3,5,'Pia',table,[n2])
for i in range(3): ix(n2,n1,userudp(ida(4),ida(2),b'zug %d'%i))
ix(n1,n2,userudp(ida(2),ida(4),b'ja'))
# a message to a group, spread by the host
ix(n3,n1,bare(0x25,struct.pack('<III',ida(9),ida(6),20)+bare(0x2d,struct.pack('<4I',ida(6),ida(9),0,24)+w('an alle'))))
ix(n2,n1,bare(0xb,dele(ida(4)))); ix(n2,n1,bare(0xb,dele(ida(3))))
c.save('dplay4-ipx'); st=lambda n: '00000000:'+n.hex()
json.dump(dict(sessions=[dict(name='Nordbahn',transport='ipx',host_ipx=st(n1),max_players=6,instance_guid_wire='41'*16,app_guid_wire='42'*16,flags='0x00000004',host_system_id=hx(ida(1)),id_xor_key=hx(key),dialect=9)],
 enumerations=[dict(ip=st(n2),count=1,answered_by=['Nordbahn'])],
 players=[dict(id=hx(ida(2)),name='Nora',host=True,ip=st(n1)),dict(id=hx(ida(4)),name='Olaf',long='Olaf lang',ip=st(n2),system_id=hx(ida(3)),host=False,certainty='gone-by-message'),dict(id=hx(ida(6)),name='Pia',ip=st(n3),certainty='announced')],
 user_messages=[dict(src=st(n2),dst=st(n1),udp=3,tcp=0),dict(src=st(n1),dst=st(n2),udp=1,tcp=0)],
 chat=[dict(**{'from':'Pia','text':'an alle'})],
 ipx=dict(stations=[dict(node=n1.hex(),framing='ethernet_ii'),dict(node=n2.hex()),dict(node=n3.hex())]),
 join_order=['Nora','Olaf','Pia'],leave_order=['Olaf'],anomalies=[],n_sessions=1,n_players=3),open(f'{OUT}/dplay4-ipx.json','w'),indent=1)
# DHCP from boot to address, ARP for it, and groups that are nobody
c=Cap(); cm,sm=bytes.fromhex('024c00106803'),bytes.fromhex('064c00106800'); c.macs={'0.0.0.0':cm,'10.98.0.3':cm,'10.98.0.254':sm}
def boot(op,kind,yi,extra=b''): return struct.pack('>BBBBIHH',op,1,6,0,0xfeedf00d,0,0x8000)+ip('0.0.0.0')+ip(yi)+ip('0.0.0.0')*2+cm+b'\0'*10+b'\0'*192+bytes([0x63,0x82,0x53,0x63,53,1,kind])+extra+b'\xff'
sid=b'\x36\x04'+ip('10.98.0.254'); want=b'\x32\x04'+ip('10.98.0.3')
c.udp('0.0.0.0',68,'255.255.255.255',67,boot(1,1,'0.0.0.0')); c.udp('10.98.0.254',67,'255.255.255.255',68,boot(2,2,'10.98.0.3',sid))
c.udp('0.0.0.0',68,'255.255.255.255',67,boot(1,3,'0.0.0.0',want+sid)); c.udp('10.98.0.254',67,'255.255.255.255',68,boot(2,5,'10.98.0.3',sid))
def arp(op,sh,sp_,th,tp): return struct.pack('>HHBBH',1,0x800,6,4,op)+sh+ip(sp_)+th+ip(tp)
c.raw((F+cm+b'\x08\x06'+arp(1,cm,'0.0.0.0',Z,'10.98.0.3')).ljust(60,b'\0'))
c.raw((F+cm+b'\x08\x06'+arp(1,cm,'10.98.0.3',Z,'10.98.0.3')).ljust(60,b'\0'))
c.raw((F+cm+b'\x08\x06'+arp(1,cm,'10.98.0.3',Z,'10.98.0.254')).ljust(60,b'\0'))
c.raw((cm+sm+b'\x08\x06'+arp(2,sm,'10.98.0.254',cm,'10.98.0.3')).ljust(60,b'\0'))
for grp in ('224.0.0.2','239.255.255.250'):
    c.macs[grp]=b'\x01\x00\x5e'+ip(grp)[1:]; c.udp('10.98.0.3',1900,grp,1900,b'M-SEARCH')
# IGMP: joins the group; a refusal of DHCP gives nobody an address
c.ipf('10.98.0.3','239.255.255.250',2,b'\x16\x00\xfa\x04'+ip('239.255.255.250'),ttl=1)
c.udp('10.98.0.254',67,'255.255.255.255',68,boot(2,6,'0.0.0.0',sid))
c.save('dhcp-groups')
json.dump(dict(frames=12,machines=[dict(mac='02:4c:00:10:68:03',ips=['10.98.0.3'],frames=8,broadcasts=5,dhcp_asked=2,dhcp_acked=1,arp={'10.98.0.254':'06:4c:00:10:68:00'}),dict(mac='06:4c:00:10:68:00',ips=['10.98.0.254'],frames=4,dhcp_asked=0,dhcp_acked=0)],
 timelines=[dict(mac='02:4c:00:10:68:03',steps=[dict(step='frame',evidence=dict(frame=1)),dict(step='address',evidence=dict(frame=4))])],anomalies=[],n_sessions=0,n_players=0),open(f'{OUT}/dhcp-groups.json','w'),indent=1)
