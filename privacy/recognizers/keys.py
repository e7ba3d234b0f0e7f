"""The lexicon of field names: what systems call the fields that hold personal data, in English and Chinese.

Written from how systems name things (snake, camel and kebab case, abbreviations, prefixes of a role), not from any data set.
A name is read from its end: `primaryContactPhone` is a phone, `phone_count` is none, because its last word is `count`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from privacy.recognizers.view import word_set

# Words that may stand behind the word that decides, and say nothing about the type.
_TAIL = word_set(
    "value val str string e text raw plain plaintext clear input param attr old new orig original e164 formatted normalized"
    " full enc masked display primary secondary main cn en zh utf8 latin local"
)
_NUM = ("", " number", " num", " no", " nr", " nbr", " num ber", " digits")

# Who a name may belong to; such a word in front of `name`, or above it in a document, makes it a person's.
ROLES = word_set(
    "customer client patient member employee staff contact recipient receiver addressee consignee sender cardholder holder"
    " accountholder owner guest passenger traveler traveller applicant insured beneficiary borrower student teacher doctor"
    " physician nurse provider guardian parent spouse child father mother driver rider buyer seller payer payee person people"
    " persons user users author reviewer attendee participant candidate billing shipping delivery subscriber caller tenant"
    " resident agent representative signer signatory witness friend relative emergency profile customers patients employees"
    " contacts members passengers guests players player personal subject donor voter victim suspect inmate booker purchaser"
)


def _spread(phrases: str, tails: tuple[str, ...] = ("",)) -> tuple[str, ...]:
    """Phrases separated by commas, each with each of the tails."""
    return tuple(f"{phrase.strip()}{tail}" for phrase in phrases.split(",") for tail in tails)


# Type -> the names that decide it. `*` in front: weak, so the value has to look the part (`fields` says how).
KEYS: dict[str, tuple[str, ...]] = {
    "person": _spread(
        "full name,fullname,first name,firstname,fname,last name,lastname,lname,surname,family name,familyname,given name,"
        "givenname,middle name,middlename,mname,maiden name,legal name,real name,"
        "realname,forename,preferred name,customer name,"
        "client name,patient name,member name,employee name,staff name,contact name,contact person,recipient name,recipient,"
        "receiver name,consignee name,addressee,sender name,cardholder name,cardholder,card holder,name on card,holder name,"
        "account holder,owner name,guest name,passenger name,pax name,applicant name,insured name,policy holder,policyholder,"
        "beneficiary name,borrower name,student name,teacher name,doctor name,physician name,nurse name,guardian name,"
        "parent name,spouse name,father name,mother name,mothers maiden name,next of kin,emergency contact,driver name,"
        "rider name,buyer name,seller name,payer name,payee name,person name,author name,attendee name,participant name,"
        "candidate name,billing name,shipping name,delivery name,ship to name,bill to name,subscriber name,caller name,"
        "tenant name,resident name,agent name,rep name,signer name,user full name,display name,gecos,cust name,emp name,"
        "pt name,attention,attn,customer full name,signed by name,primary contact,"
        "姓名,名字,真实姓名,客户姓名,客户名称,用户姓名,收件人,收货人,收件人姓名,"
        "收货人姓名,寄件人,发件人,联系人,联系人姓名,持卡人,"
        "持卡人姓名,患者姓名,病人姓名,员工姓名,学生姓名,乘客姓名,旅客姓名,投保人,被保险人,"
        "受益人,申请人,户主,法定代表人,法人姓名,开户名,"
        "账户姓名,家长姓名,紧急联系人,司机姓名,购票人,预订人,入住人"
    )
    + _spread("*name,*customer,*client,*patient,*passenger,*guest,*employee,*student,*contact,*nm,*户名"),
    "phone": _spread("phone,telephone,mobile,cell,cellphone,cell phone,mobile phone,tel,landline,msisdn,fax", _NUM)
    + _spread(
        "phone nr,home phone,work phone,business phone,day phone,evening phone,contact number,contact no,callback number,"
        "caller id,calling number,called number,call from,whatsapp,whatsapp number,wechat phone,sms to,phonenumber,phoneno,"
        "mobileno,mobilenumber,telno,telnumber,cellno,mob,mob no,mobile nbr,dialed number,userphone,customerphone,homephone,"
        "workphone,"
        "手机,手机号,手机号码,电话,电话号码,联系电话,联系方式,移动电话,固定电话,座机,"
        "座机号,家庭电话,办公电话,收货人手机,收件人电话,"
        "预留手机号,传真,客服回电"
    ),
    "email": _spread(
        "email,e mail,mail,email address,mail address,email addr,emailaddress,mailto,mail to,useremail,contact email,reply to,"
        "recipient email,邮箱,电子邮箱,邮件地址,电子邮件,邮箱地址"
    ),
    "address": _spread(
        "street,street address,streetaddress,street name,address line,addressline,address line 1,address line 2,addr line,"
        "home address,mailing address,postal address,billing address,shipping address,delivery address,residential address,"
        "residence,permanent address,current address,ship to,bill to,ship to address,bill to address,work address,"
        "shipping addr,billing addr,home addr,full address,street line,house number,house no,apartment number,"
        "地址,住址,家庭住址,家庭地址,收货地址,收件地址,寄件地址,详细地址,居住地址,通讯地址,"
        "联系地址,户籍地址,现住址,街道地址,单位地址,"
        "账单地址,配送地址,送货地址,身份证地址"
    )
    + _spread("*address,*addr,*adr,*addr 1,*addr 2"),
    "location": _spread(
        "city,town,zip,zip code,zipcode,postal code,postalcode,post code,postcode,plz,county,birth place,birthplace,"
        "place of birth,hometown,home town,city of birth,城市,邮编,邮政编码,出生地,籍贯,所在城市"
    ),
    "birth": _spread(
        "dob,date of birth,dateofbirth,birth date,birthdate,birth day,birthday,bday,birth dt,born,born on,born at,birth year,"
        "year of birth,yob,d o b,pt dob,出生日期,生日,出生年月,出生年月日,出生时间"
    ),
    "age": _spread("age,user age,patient age,customer age,年龄,岁数"),
    "username": _spread(
        "user,username,user name,userid,user id,userlogin,user login,login,login name,loginname,login id,uname,usr,"
        "account name,screen name,screenname,nick,nickname,handle,logon,logon name,sam account name,owner,principal,operator,"
        "created by,updated by,modified by,approved by,requested by,assignee,wechat,wechat id,weixin,openid user,qq,skype,"
        "telegram,twitter,instagram,facebook,line id,wxid,slack user,github user,os user,db user,remote user,ssh user,"
        "用户名,用户,登录名,登录账号,账号,用户账号,昵称,账户名,微信号,微信,工号账号,操作员,支付宝账号"
    ),
    "password": _spread(
        "password,passwd,passwort,pass,pwd,pswd,passphrase,pass phrase,passcode,pass code,userpassword,user password,pw,"
        "new password,old password,confirm password,password confirm,password confirmation,db password,root password,"
        "admin password,login password,pin,pin code,security answer,"
        "secret answer,密码,口令,登录密码,支付密码,交易密码,新密码,旧密码,"
        "确认密码,初始密码,密保答案"
    ),
    "secret": _spread(
        "secret,client secret,api key,apikey,api token,access token,accesstoken,refresh token,auth token,authtoken,id token,"
        "session token,session key,sessionid,session id,private key,privatekey,secret key,secretkey,signing key,encryption key,"
        "access key,accesskey,account key,shared secret,webhook secret,token,bearer,jwt,csrf token,xsrf token,oauth token,"
        "security token,otp,otp code,totp,mfa code,two factor code,verification code,verify code,sms code,auth code,cvv,cvc,"
        "cvv2,cvc2,security code,card cvc,recovery code,backup code,signature key,master key,license key,x api key,credential,"
        "credentials,cookie,set cookie,authorization,密钥,令牌,验证码,安全码,授权码,动态码,访问令牌"
    ),
    "card": _spread(
        "card,card number,cardnumber,card no,cardno,card num,card pan,cc,cc number,cc num,ccnum,cc no,credit card,"
        "credit card number,credit card no,creditcard,debit card,debit card number,payment card,pan,primary account number,"
        "card last4,card last 4,last4,last four,信用卡,信用卡号,卡号,借记卡号"
    ),
    "bank card": _spread(
        "bank card,bank card no,bank card number,bankcard,bankcardno,银行卡,银行卡号,银行卡号码,储蓄卡号,收款卡号"
    ),
    "iban": _spread("iban,iban number,iban no,creditor iban,debtor iban,bank iban"),
    "account": _spread("account,acct,bank account,bank acct,checking account,savings account,loan,deposit account", _NUM[1:])
    + _spread(
        "bank account,bankaccount,accountno,accountnumber,acctno,acct nbr,acc no,acc num,a c no,bban,clabe,routing number,"
        "routing no,aba,aba number,sort code,sortcode,policy number,policy no,"
        "insurance number,insurance id,beneficiary account,"
        "debit account,credit account,payer account,payee account,loan id,"
        "银行账号,银行账户,账户号,账户号码,开户账号,收款账号,付款账号,"
        "保单号,公积金账号,医保卡号,社保号"
    )
    + _spread("*account,*acct"),
    "ssn": _spread(
        "ssn,social security,social security number,social security no,socialsecuritynumber,ssn last4,ss number,ssnum,soc sec,"
        "soc sec no,soc sec num,tax id,taxid,tin,itin,taxpayer id,sin number,nino,national insurance number"
    ),
    "passport": _spread(
        "passport,passport number,passport no,passport num,passportno,passportnumber,passport id,护照,护照号,护照号码"
    ),
    "licence": _spread(
        "driver license,drivers license,driver licence,drivers licence,driving license,driving licence,dl,dl number,dl no,"
        "dln,license number,licence number,driver license number,drivers license number,driver licence number,"
        "driver license no,driverlicense,dl num,驾驶证,驾驶证号,驾照,驾照号,驾驶证号码"
    ),
    "resident id": _spread(
        "id card,idcard,id card no,id card number,idcardno,id no,idno,identity card,identity number,identity no,national id,"
        "nationalid,national id number,citizen id,cert no,certno,id number,id num,cert id,resident id,government id,"
        "身份证,身份证号,身份证号码,证件号,证件号码,公民身份号码,居民身份证号,身份证件号"
    ),
    "plate": _spread(
        "license plate,licence plate,licenseplate,plate,plate number,plate no,plateno,number plate,vehicle plate,car plate,"
        "registration plate,vehicle registration,vrn,vrm,车牌,车牌号,车牌号码,车号"
    ),
    "mrn": _spread(
        "mrn,medical record,medical record number,medical record no,patient id,"
        "patientid,patient number,patient no,chart number,"
        "chart no,hospital number,case history number,health card,"
        "health card number,health insurance number,病历号,住院号,门诊号,"
        "患者编号,就诊卡号,病案号"
    ),
    "nhs": _spread("nhs,nhs number,nhs no,nhsno,nhsnumber"),
    "npi": _spread("npi,npi number,npi no,provider npi"),
    "customer": _spread(
        "customer id,customerid,customer number,customer no,customerno,cust id,custid,cust no,client id number,client number,"
        "client no,member id,memberid,member number,member no,membership number,membership no,membership id,subscriber id,"
        "subscriber number,loyalty number,loyalty id,frequent flyer number,ffn,employee id,employee number,employee no,emp id,"
        "emp no,staff id,student id,student number,student no,payroll id,badge number,"
        "客户号,客户编号,会员号,会员卡号,会员编号,员工编号,工号,学号,用户编号"
    ),
    "imei": _spread("imei,imei1,imei2,device imei,imei number,imei no,meid,设备串号"),
    "imsi": _spread("imsi,iccid,sim number,sim serial"),
    "ip": _spread(
        "ip,ip address,ipaddress,ip addr,ipaddr,client ip,clientip,remote ip,user ip,source ip,src ip,peer ip,login ip,real ip,"
        "remote addr,remote address,x forwarded for,x real ip,ipv4,ipv6,last login ip,登录ip"
    ),
    "position": _spread(
        "gps,coordinates,coordinate,coords,coord,geo,geolocation,geo location,latlng,lat lng,latlon,lat lon,lat long,latlong,"
        "position,gps location,gps position,gps coordinates,location,last location,坐标,经纬度,定位,位置"
    ),
    "degree": _spread(
        "lat,latitude,lng,lon,long,longitude,gps lat,gps lon,gps lng,gps latitude,"
        "gps longitude,geo lat,geo lon,geo lng,纬度,经度"
    ),
}

_WEAK = {(kind, name[1:].replace(" ", "")) for kind, names in KEYS.items() for name in names if name[0] == "*"}
_KIND_OF = {name.lstrip("*").replace(" ", ""): kind for kind, names in KEYS.items() for name in names}
_LONGEST = max(len(name.split()) for names in KEYS.values() for name in names) + 1
_HAN = re.compile(r"[\u4e00-\u9fff]+")
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[\u4e00-\u9fff]+")


@lru_cache(maxsize=8_192)
def kind_of(key: str) -> tuple[str, bool]:
    """The type of a field by its name, and whether the name is weak evidence; ("", True) when it says nothing."""
    if _HAN.search(key):
        run = _HAN.findall(key)[-1] if _KNOWN.search(key) else ""
        return next(((_KIND_OF[run[i:]], _weak(run[i:])) for i in range(len(run)) if run[i:] in _KIND_OF), ("", True))
    if _KNOWN.search(key) is None:
        return "", True
    key = key[-80:]
    starts = [match.start() for match in _SPLIT.finditer(key)]
    words = [word.lower() for word in _SPLIT.findall(key)]
    while words and (words[-1] in _TAIL or words[-1].isdigit()) and "".join(words[-2:]) not in _KIND_OF:
        words.pop()
    for count in range(min(_LONGEST, len(words)), 0, -1):
        name = "".join(words[-count:])
        if name in _KIND_OF and not (count < len(words) and _refused(words[-count - 1], _KIND_OF[name])):
            of_class = _weak(name) and _names_class(key, starts[len(words) - count])
            return ("", True) if of_class else (_KIND_OF[name], _weak(name))
    return "", True


def _names_class(key: str, start: int) -> bool:
    """Whether a weak name ends the dotted name of a class: loggers (`org.apache.hadoop.ipc.Client: `) hold nobody's data."""
    return key[start - 1 : start] == "." and key[start].isupper()


def _weak(name: str) -> bool:
    return (_KIND_OF[name], name) in _WEAK


# Words in front that make a thing of it: a key named `host name`, `mac address` or `token user`, by type.
_THINGS = word_set(
    "host file class method function table column db database schema index field tag event metric queue topic job task step"
    " stage service server node cluster pod container image module package app application product item model brand company"
    " store shop school hotel merchant bank domain bucket region zone resource role group team project thread process logger"
    " level type kind code rule policy template device os browser network interface driver plugin key var variable env"
    " environment cache branch repo repository tenant workflow pipeline dag test suite"
    " case scenario config setting feature flag"
    " command program path dir directory folder attachment document category department city state country street"
    " bind listen mac ip web url http memory mem physical virtual hardware wallet contract base start end program return load"
    " remote local source dest destination target src dst peer server proxy gateway socket broadcast multicast"
)
_MAY_BE_THING = frozenset({"person", "address"})


def _refused(before: str, kind: str) -> bool:
    return kind in _MAY_BE_THING and before in _THINGS


def near_names(kinds: tuple[str, ...]) -> list[str]:
    """For a gate: expressions of the names of these kinds, with any sign or none between their words.

    A name starts a word, or stands behind a lower-case letter and begins with a capital (`homePhone`).
    """
    named = sorted({(name.lstrip("*"), name[0] == "*") for kind in kinds for name in KEYS[kind]})
    return [_start(name[0], weak) + r"[ _.-]?".join(re.escape(word) for word in name.split())[1:] for name, weak in named]


def _start(letter: str, weak: bool) -> str:
    """weak: such a name may stand behind a dot only if it is no class (`_names_class`)."""
    if not letter.isascii():
        return letter
    camel = rf"(?-i:(?<=[a-z0-9]){letter.upper()})"
    if weak:
        return rf"(?:(?<![0-9A-Za-z.]){letter}|(?-i:(?<=\.){letter})|{camel})"
    return rf"(?:(?<![0-9A-Za-z]){letter}|{camel})"


# What may stand between a name and the end of its key; the gates of `fields` and `kind_of` agree on it.
NAME_TAIL = r"(?:[ _.-]?(?:value|val|raw|text|str|plain|masked|formatted|e164|[a-z]{2}))?[ _.-]?[0-9]{0,3}"
_KNOWN = re.compile("(?:" + "|".join(near_names(tuple(KEYS))) + ")" + NAME_TAIL + r"\Z", re.IGNORECASE)
